"""What an evaluation leaves in a folder, and reading it back: the contract of `vlm eval`, `vlm compare` and the report.

    OUTPUT/run.json                 RunInfo
    OUTPUT/TASK/results.json        TaskResult
    OUTPUT/TASK/samples.jsonl       one Sample a line, in the order of the data set
    OUTPUT/report.{md,html,json}

A prompt other than a card's first has its own folder, `TASK@2` for the second. No file holds a time of day, so two runs
of the same thing have the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from vlm import config
from vlm.config import Config
from vlm.errors import BadInput
from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.usage import Usage
from vlm.files import atomic_write


class Figure(Config):
    """A metric over a benchmark with its 95 % interval, all on the scale the metric is published in."""

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None
    """Standard error, clustered by picture."""
    n: int
    sample_score: str | None = None
    """The key of `Sample.scores` whose mean, times `scale`, this figure is; None where it is no mean of samples."""
    scale: float = 1.0
    bounds: tuple[float, float] | None = None
    """The least and the most it can be, where that is known; no interval reaches beyond."""
    joint: bool = False
    """A sample's score depends on the other samples too (a rank on the candidates, CIDEr on how rare words are):
    such scores can be compared only between runs of the very same samples."""
    note: str = ""


class Sample(Config):
    """One question put to the model and what came of it."""

    id: str
    inputs: dict[str, Any]
    """`image`, `video` or `frames`: files as `vlm.evaluation.portable_paths` names them, alike on every machine."""
    prompt: str = ""
    """The text the model was given; a retrieval query's text."""
    output: Any = None
    """What it said: raw text, or the best candidates as `[{"item": ..., "score": ...}]`."""
    prediction: str | None = None
    """The answer read from the output, or the best candidate."""
    references: tuple[str, ...] = ()
    scores: dict[str, float | None] = Field(default_factory=dict)
    """Fractions and metrics of this sample alone; also `confidence` in [0, 1] where the model gives one."""
    cluster: str = ""
    """Samples of one cluster (a picture, a clip) are not independent."""
    category: str | None = None
    judgement: str | None = None
    """What a judge said of it, in its own words."""


class TaskResult(Config):
    """A benchmark's figures and everything two runs could differ in."""

    task: str
    model: str
    weights: str
    """sha256 over the model's weights."""
    card: BenchmarkCard
    prompt: str = ""
    prompt_number: int = 1
    settings: dict[str, Any] = Field(default_factory=dict)
    """`limit`, `max_tokens` and whatever else changes a score."""
    main: str
    """The figure the benchmark is known by."""
    figures: dict[str, Figure]
    categories: dict[str, dict[str, Figure]] = Field(default_factory=dict)
    """Category -> metric -> figure."""
    notes: tuple[str, ...] = ()
    """What a reader must know to trust the figures ("METEOR not available: no Java")."""
    warnings: tuple[str, ...] = ()
    """Those of the notes that say what was left out or counted as nothing; they are printed too."""
    usage: Usage | None = None
    """Of a model behind a chat endpoint."""
    judge_usage: Usage | None = None
    """Of a judge behind one."""


class RunInfo(Config):
    model: str
    weights: str
    version: str
    data: str
    """The data folder on the machine of the run; empty where none was needed."""
    tasks: tuple[str, ...]
    """In order; one without a `results.json` is not finished."""
    endpoint: str = ""
    """The address of the chat endpoint that answered."""
    usage: Usage | None = None
    """Of all its finished tasks."""


def write_task(folder: Path, result: TaskResult, samples: Sequence[Sample]) -> None:
    """Both files of a task, each atomically, the result last: where it is, the task is whole.

    An older result goes first, so that a kill between the two does not leave it with samples that are not its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)
    lines = (json.dumps(s.model_dump(mode="json"), ensure_ascii=False) + "\n" for s in samples)
    atomic_write(folder / "samples.jsonl", "".join(lines))
    atomic_write(folder / "results.json", result.model_dump_json(indent=1) + "\n")


def write_info(folder: Path, info: RunInfo) -> None:
    atomic_write(folder / "run.json", info.model_dump_json(indent=1) + "\n")


def read_result(folder: Path) -> TaskResult:
    path = folder / "results.json"
    return config.parse(TaskResult, _json(path.read_bytes() if path.is_file() else None, str(path)), str(path))


def read_samples(folder: Path) -> Iterator[Sample]:
    path = folder / "samples.jsonl"
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield config.parse(Sample, _json(line, f"{path}:{number}"), f"{path}:{number}")


def read_info(folder: Path) -> RunInfo:
    path = folder / "run.json"
    return config.parse(RunInfo, _json(path.read_bytes() if path.is_file() else None, str(path)), str(path))


def read_run(folder: Path) -> tuple[RunInfo, dict[str, TaskResult]]:
    """A run's description and its finished tasks' results, in order. Raises `BadInput` where a file is damaged."""
    info = read_info(folder)
    finished = [task for task in info.tasks if (folder / task / "results.json").is_file()]
    return info, {task: read_result(folder / task) for task in finished}


def _json(text: bytes | None, where: str) -> Any:
    if text is None:
        raise BadInput(f"{where}: no such file (is this a folder of `vlm eval --output`?)")
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{where}: not JSON: {error}") from None

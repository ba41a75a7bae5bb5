"""Run benchmarks: the heads as users call them, over a data set's split, scored by the reference's metrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlm import __version__, assets
from vlm.api import Model, load
from vlm.datasets.examples import DatasetCard, Example, data_folder
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput
from vlm.evaluation.cache import RequestCache
from vlm.evaluation.card import BenchmarkCard, load_card
from vlm.evaluation.kinds import caption, choice, classification, moments, retrieval, vqa
from vlm.evaluation.kinds.base import Job
from vlm.evaluation.results import RunInfo, TaskResult, read_run, write_task
from vlm.evaluation.subject import Subject
from vlm.files import atomic_write

Report = Callable[[str, int, int], None]
"""Told of a benchmark's name, examples done and examples in all."""

KINDS = {
    "retrieval": retrieval.run,
    "caption": caption.run,
    "vqa": vqa.run,
    "choice": choice.run,
    "classification": classification.run,
    "moments": moments.run,
}


@dataclass(frozen=True)
class Options:
    """How to run, beside what: nothing here changes a figure except `limit` and `prompts`."""

    data: str | None = None
    """The folder of data sets; `$VLM_DATA` by default."""
    limit: int | None = None
    batch_size: int | None = None
    """`None` chooses one."""
    output: Path | None = None
    resume: bool = False
    prompts: Literal["first", "all"] = "first"


def evaluate(
    model: str | Model, tasks: Sequence[str], options: Options | None = None, report: Report | None = None
) -> list[TaskResult]:
    """The results of each benchmark (and of each of its prompts, if all are wanted), in order.

    `tasks` are cards, paths of cards, or groups. With `options.output` the folder gets what `vlm.evaluation.results`
    describes, and every answer is kept there as soon as it is given: a run that was cut off goes on with
    `resume=True` and leaves the same bytes. All cards and data are checked before the model is loaded. Raises
    `BadInput`.
    """
    options = options or Options()
    # A data set that comes in a wheel needs no folder; one that needs a folder says so.
    data = data_folder(options.data) if options.data or os.environ.get("VLM_DATA") else None
    work = [_prepare(card, data, options.limit) for card in cards_of(tasks)]
    _check_output(options)
    loaded = load(model) if isinstance(model, str) else model
    with tempfile.TemporaryDirectory() as scratch:
        cache = RequestCache((options.output or Path(scratch)) / "requests.sqlite")
        try:
            subject = Subject(loaded, cache, options.batch_size)
            _begin(options, subject, data)
            return [result for item in work for result in _run(item, subject, data, options, report)]
        finally:
            cache.close()


def cards_of(tasks: Sequence[str]) -> list[BenchmarkCard]:
    """The cards of names, paths and groups, each once. Raises `BadInput` with the nearest name for an unknown one."""
    known = {name: load_card(name) for name in assets.cards("eval")}
    groups: dict[str, list[str]] = {}
    for name, card in known.items():
        for group in card.groups:
            groups.setdefault(group, []).append(name)
    chosen: dict[str, BenchmarkCard] = {}
    for task in tasks:
        for name in groups.get(task, [task]) if task not in known else [task]:
            card = known.get(name) or load_card(name)
            chosen.setdefault(card.name, card)
    return list(chosen.values())


@dataclass(frozen=True)
class _Work:
    card: BenchmarkCard
    dataset: DatasetCard
    examples: list[Example]


def _prepare(card: BenchmarkCard, data: Path | None, limit: int | None) -> _Work:
    dataset = load_dataset(card.dataset)
    examples = dataset.read(data, card.split, limit)
    if not examples:
        raise BadInput(f"benchmark {card.name}: no examples in split {card.split!r}, limit {limit}")
    return _Work(card, dataset, examples)


def _run(work: _Work, subject: Subject, data: Path | None, options: Options, report: Report | None) -> list[TaskResult]:
    card = work.card
    # Only what is asked of a language model is asked in several wordings; a classifier's prompts are one ensemble.
    several = options.prompts == "all" and card.kind in ("vqa", "choice", "caption")
    results = []
    for number, prompt in enumerate((card.prompts if several else card.prompts[:1]) or (None,), 1):
        name = card.name if number == 1 else f"{card.name}@{number}"

        def progress(done: int, name: str = name) -> None:
            if report is not None:
                report(name, done, len(work.examples))

        job = Job(subject.shown(card.sampling), card, work.examples, data, progress, prompt, work.dataset.classes)
        outcome = KINDS[card.kind](job)
        result = TaskResult(
            task=name,
            model=subject.model.name,
            weights=subject.weights,
            card=card,
            prompt=prompt or "",
            prompt_number=number,
            settings={"limit": options.limit, "max_tokens": card.max_tokens, "examples": len(work.examples)},
            main=outcome.main,
            figures=outcome.figures,
            categories=outcome.categories,
            notes=outcome.notes,
        )
        if options.output is not None:
            write_task(options.output / name, result, outcome.samples)
            _add_task(options.output, name)
        results.append(result)
    return results


def _check_output(options: Options) -> None:
    """Refuse to write over another run before anything is computed."""
    if options.output is None:
        if options.resume:
            raise BadInput("--resume: expected --output, the folder of the run to go on with")
        return
    if options.output.exists() and not options.output.is_dir():
        raise BadInput(f"{options.output}: not a folder")
    if not options.resume and options.output.is_dir() and any(options.output.iterdir()):
        raise BadInput(f"{options.output}: not empty; go on with it (--resume) or choose another --output")


def _begin(options: Options, subject: Subject, data: Path | None) -> None:
    if options.output is None:
        return
    tasks: tuple[str, ...] = ()
    if (options.output / "run.json").is_file():
        info, _ = read_run(options.output)
        if info.weights != subject.weights:
            raise BadInput(f"{options.output}: holds a run of {info.model} with other weights; choose another --output")
        tasks = info.tasks
    _write(options.output, RunInfo(
        model=subject.model.name, weights=subject.weights, version=__version__, data=str(data or ""), tasks=tasks
    ))  # fmt: skip


def _add_task(output: Path, name: str) -> None:
    info, _ = read_run(output)
    _write(output, info.model_copy(update={"tasks": tuple(dict.fromkeys((*info.tasks, name)))}))


def _write(output: Path, info: RunInfo) -> None:
    atomic_write(output / "run.json", info.model_dump_json(indent=1) + "\n")

"""Small run folders for the tests of `vlm compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.comparing.compare import compare
from vlm.evaluation.comparing.comparison import TaskComparison
from vlm.evaluation.results import Figure, RunInfo, Sample, TaskResult, write_task

CARD = BenchmarkCard(name="pets", about="", dataset="pets", split="test", kind="vqa", prompts=("{question}",))


def samples(scores: Sequence[float | None], each: int = 1, **changes: Any) -> list[Sample]:
    """One sample a score, `each` to a picture."""
    return [
        Sample(
            id=f"q{i}",
            inputs={"image": f"{i // each}.jpg"},
            prompt=f"Is animal {i} a cat?",
            output="yes" if score else "no",
            references=("yes",),
            scores={"right": score},
            cluster=f"{i // each}.jpg",
        ).model_copy(update=changes)
        for i, score in enumerate(scores)
    ]


def write_run(folder: Path, tasks: Mapping[str, list[Sample]], **changes: Any) -> Path:
    """A run whose tasks have an accuracy in percent and a figure that is no mean of samples."""
    info = {"model": "nano", "weights": "ab" * 32, "version": "0.1.0", "data": "data", "tasks": tuple(tasks)}
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(
        RunInfo.model_validate(info | {k: v for k, v in changes.items() if k in info}).model_dump_json()
    )
    for task, rows in tasks.items():
        scores = [row.scores["right"] for row in rows if row.scores["right"] is not None]
        accuracy = 100 * float(np.mean(scores)) if scores else 0.0
        result = TaskResult(
            task=task,
            model="nano",
            weights="ab" * 32,
            card=CARD,
            main="accuracy",
            settings={"limit": None, "max_tokens": 16},
            figures={
                "accuracy": Figure(value=accuracy, n=len(rows), sample_score="right", scale=100),
                "bleu": Figure(value=0.25, n=len(rows)),
            },
        )
        write_task(folder / task, result.model_copy(update=changes), rows)
    return folder


def both(tmp_path: Path, a: list[Sample], b: list[Sample], **changes: Any) -> TaskComparison:
    first, second = write_run(tmp_path / "a", {"pets": a}), write_run(tmp_path / "b", {"pets": b}, **changes)
    (task,) = compare(first, second).tasks
    return task

"""Small run folders for the tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm.evaluation.card import BenchmarkCard, Published
from vlm.evaluation.results import Figure, RunInfo, Sample, TaskResult, write_task
from vlm.files import atomic_write

HOSTILE = "</script><script>alert('x')</script><!-- \"quoted\" & <b>bold</b> \u2028 ]]>"
WEIGHTS = "0123456789abcdef" * 4


def picture(path: Path, seed: int, size: tuple[int, int] = (160, 120)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)


def vqa(name: str, samples: Sequence[Sample], **changes: Any) -> TaskResult:
    """The result of a question benchmark whose figures need not follow from its samples."""
    card = BenchmarkCard(
        name=name.partition("@")[0],
        about="Questions about small pictures.",
        dataset="made",
        split="test",
        kind="vqa",
        category="colour",
        published=(Published(model="Another", metric="accuracy", value=31.5, source="https://example.org/paper"),),
    )
    figure = Figure(
        value=20.6, low=18.2, high=23.1, error=1.2, n=len(samples), sample_score="accuracy", scale=100, note="soft"
    )
    made = TaskResult(
        task=name,
        model="small",
        weights=WEIGHTS,
        card=card,
        prompt="{question} Answer in a word.",
        settings={"limit": 12, "max_tokens": 16},
        main="accuracy",
        figures={"length": Figure(value=2.25, n=len(samples)), "accuracy": figure},
        categories={"red": {"accuracy": figure}, "blue": {"accuracy": figure.model_copy(update={"value": 40.0})}},
        notes=("METEOR not available: no Java",),
    )
    return made.model_copy(update=changes)


def questions(data: Path, count: int, pictures: int, *, hostile: bool = True) -> list[Sample]:
    """Samples that share `pictures` pictures in the data folder; every third is right, one in ten has hostile text."""
    for i in range(pictures):
        picture(data / f"made/{i}.png", i)
    samples = []
    for i in range(count):
        bad = hostile and i % 10 == 4
        right = i % 3 == 0
        samples.append(
            Sample(
                id=f"q{i}",
                inputs={"image": f"made/{i % pictures}.png"},
                prompt=f"What is number {i}? {HOSTILE if bad else ''}".strip(),
                output=f"It is {i}. {HOSTILE if bad else ''}".strip(),
                prediction=str(i),
                references=(str(i if right else -i), HOSTILE) if bad else (str(i if right else -i),),
                scores={"accuracy": float(right), "confidence": round(0.05 + 0.9 * (i % 10) / 10, 3)},
                cluster=f"made/{i % pictures}.png",
                category="red" if i % 2 else "blue",
            )
        )
    return samples


def searches(data: Path, pictures: int) -> tuple[TaskResult, list[Sample]]:
    """Retrieval both ways over a few pictures: the right one ranks first, third, or not among the candidates."""
    names = [f"made/{i}.png" for i in range(pictures)]
    captions = [f"picture number {i}" for i in range(pictures)]
    samples = []
    for way, queries, candidates in (("text_to_image", captions, names), ("image_to_text", names, captions)):
        for i, query in enumerate(queries):
            picture(data / names[i], i)
            rank = (1, 3, 7)[i % 3]
            others = [c for j, c in enumerate(candidates) if j != i]
            found = [*others[: rank - 1], candidates[i], *others[rank - 1 :]][:5] if rank <= 5 else others[:5]
            text = way == "text_to_image"
            scores = {"rank": float(rank), f"{way}_R@1": float(rank == 1)}
            samples.append(
                Sample(
                    id=f"{i}#0" if text else str(i),
                    inputs={} if text else {"image": query},
                    prompt=query if text else "",
                    output=[{"item": item, "score": 0.5 - 0.1 * k} for k, item in enumerate(found)],
                    prediction=found[0],
                    references=(candidates[i],),
                    scores=scores,
                    cluster=names[i],
                    category=way,
                )
            )
    card = BenchmarkCard(name="search", about="Both ways.", dataset="made", split="test", kind="retrieval")
    figures = {
        f"{way}_R@1": Figure(value=33.3, low=20, high=50, n=pictures, sample_score=f"{way}_R@1", scale=100)
        for way in ("text_to_image", "image_to_text")
    }
    result = TaskResult(
        task="search", model="small", weights=WEIGHTS, card=card, main="text_to_image_R@1", figures=figures
    )
    return result, samples


def write_run(folder: Path, data: Path, tasks: Sequence[tuple[TaskResult, Sequence[Sample]]]) -> Path:
    for result, samples in tasks:
        write_task(folder / result.task, result, samples)
    names = tuple(result.task for result, _ in tasks)
    info = RunInfo(model="small", weights=WEIGHTS, version="0.1.0", data=str(data), tasks=names)
    atomic_write(folder / "run.json", info.model_dump_json())
    return folder

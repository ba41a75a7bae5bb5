"""Before a stage learns: how many samples of named benchmarks are in what it will read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.overlap.contamination import (
    Report,
    compare_pictures,
    compare_texts,
    normalise,
    read_examples,
    texts_of,
)
from vlm.files import atomic_write
from vlm.training.recipe import Recipe

KEPT = "overlap.json"
"""In the run's folder: what was found, so that a run that goes on is not looked through again."""


@dataclass(frozen=True)
class Found:
    """A benchmark of which something is in the training data."""

    benchmark: str
    samples: int
    """Of the benchmark."""
    shared: int
    """Those that share a long run of words with the training data, or show a picture that is in it."""
    by_text: int
    by_picture: int
    byte_for_byte: int
    """Benchmark pictures whose very file is there."""
    example: str
    """One of them, and where it is."""

    def __str__(self) -> str:
        parts = f"{self.by_text:,} by their words, {self.by_picture:,} by their pictures"
        there = f"{self.shared:,} of {self.samples:,} samples are in the training data ({parts})"
        return f"benchmark {self.benchmark}: {there}, such as {self.example}"


def check_overlap(recipe: Recipe, warn: Callable[[str], None], report: Report | None = None) -> list[Found]:
    """Look for the benchmarks that `recipe.overlap` names in the data sets that the recipe reads.

    What is found is kept in the run's folder, and a run that goes on is not looked through again. With `found: warn`
    each is told by `warn`; else raises `BadInput` with the counts, before anything is learned. Also raises it where the
    recipe reads other things than data sets.
    """
    if recipe.overlap is None:
        return []
    sources = recipe.objective.reads()
    if not sources:
        raise BadInput(f"{recipe.output}: overlap: expected an objective that reads data sets by their cards")
    request = {"sources": sources, **recipe.overlap.model_dump(mode="json", exclude={"found"})}
    run = Path(recipe.output)
    found = _kept(run / KEPT, request) if (run / "checkpoint").is_dir() else None
    if found is None:
        found = [one for name in recipe.overlap.benchmarks if (one := _shared(name, sources, recipe, report)).shared]
    if found and recipe.overlap.found == "refuse":
        told = "; ".join(map(str, found))
        raise BadInput(f"{recipe.output}: {told}; expected none: take them out, or set overlap.found=warn")
    run.mkdir(parents=True, exist_ok=True)
    kept = {"request": request, "found": [asdict(one) for one in found]}
    atomic_write(run / KEPT, json.dumps(kept, indent=1) + "\n")
    for one in found:
        warn(str(one))
    return found


def _shared(benchmark: str, sources: list[str], recipe: Recipe, report: Report | None) -> Found:
    assert recipe.overlap is not None
    asked = read_examples(benchmark, recipe.data, benchmark=True)
    train = [
        example.model_copy(update={"id": f"{source} {example.id}"})
        for source in sources
        for example in read_examples(source, recipe.data)
    ]
    # A short text that is there whole is no sign: many questions are alike.
    words = recipe.overlap.words
    long = [_with_texts(one, [text for text in texts_of(one) if len(normalise(text)) >= words]) for one in asked]
    texts = compare_texts(train, long, words)
    pictures = compare_pictures(train, asked, recipe.overlap.distance, report)
    by_text = {pair.benchmark: pair.train for pair in texts.pairs}
    shown = {example.id: {str(path) for path in example.pictures} for example in asked}
    seen = {pair.benchmark_path: pair.train for pair in pictures.pairs}
    by_picture = {name: seen[path] for name, paths in shown.items() for path in sorted(paths & seen.keys())}
    shared = {**by_text, **by_picture}
    example = next((f"{name!r} ({place})" for name, place in shared.items()), "")
    return Found(benchmark, len(asked), len(shared), len(by_text), len(by_picture), pictures.exact, example)


def _with_texts(example: Example, texts: list[str]) -> Example:
    return example.model_copy(update={"captions": tuple(texts), "question": None, "answers": (), "options": ()})


def _kept(path: Path, request: dict[str, object]) -> list[Found] | None:
    """What was found before for the same request."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [Found(**one) for one in kept["found"]] if kept["request"] == request else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

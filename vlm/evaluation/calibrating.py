"""Temperatures of decisions, fitted on a validation split: one for each kind of question."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlm.datasets.examples import data_folder
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput
from vlm.evaluation.cache import RequestCache
from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.deciding import KINDS, Answered, answered, figures_of
from vlm.evaluation.model_under_test import ModelUnderTest
from vlm.evaluation.results import Figure
from vlm.evaluation.task_types.base import Job
from vlm.facade import Model
from vlm.heads.decisions.decider import Temperatures
from vlm.heads.decisions.temperature import fit, write

FEWEST = 20
"""Questions of a kind; one number is fitted to them."""
_TEST = re.compile(r"test", re.IGNORECASE)
Report = Callable[[str, int, int], None]
"""Told of a benchmark's name, questions done and examples in all."""


@dataclass(frozen=True)
class Fitted:
    """The temperature of a kind of question, and its figures on the questions that it was fitted to."""

    kind: str
    temperature: float
    before: dict[str, Figure]
    after: dict[str, Figure]


def validation_split(card: BenchmarkCard, split: str | None) -> str:
    """The split that is fitted on. Raises `BadInput` for a test split, by its own name or that of its files."""
    dataset = load_dataset(card.dataset)
    wanted = split or card.split
    if wanted not in dataset.splits:
        raise BadInput(f"dataset {dataset.name}: no split {wanted!r}; it has {', '.join(dataset.splits)}")
    if test := next((name for name in (wanted, dataset.names.get(wanted, "")) if _TEST.search(name)), None):
        others = ", ".join(name for name in dataset.splits if not _TEST.search(name)) or "none"
        raise BadInput(
            f"benchmark {card.name}: split {test!r} is for testing: what is fitted on it cannot be measured on it; "
            f"expected a validation split (--split), and there is {others}"
        )
    return wanted


def calibrate(
    model: Model, cards: Sequence[BenchmarkCard], to: Path, *, split: str | None = None, data: str | None = None,
    limit: int | None = None, report: Report = lambda name, done, total: None,
) -> list[Fitted]:  # fmt: skip
    """Fit a temperature for each kind of question that the benchmarks ask, and write them into the `decision.json`
    `to`; what else it holds stays. Raises `BadInput` for a test split, for benchmarks without such questions, where a
    kind has fewer than `FEWEST`, and as `fit`."""
    splits = [validation_split(card, split) for card in cards]
    if wrong := next((card for card in cards if card.kind not in KINDS), None):
        raise BadInput(f"benchmark {wrong.name}: kind {wrong.kind}; expected kind {' or '.join(KINDS)}")
    folder = None if data is None else data_folder(data)
    tested = ModelUnderTest(model, cache := RequestCache())
    try:
        found: list[Answered] = []
        for card, name in zip(cards, splits, strict=True):
            own = card.for_model(tested.name).model_copy(update={"split": name})
            examples = load_dataset(own.dataset).read(folder, name, limit)
            said = partial(_progress, report, card.name, len(examples))
            prompt = own.prompts[0] if own.prompts else None
            found += answered(Job(tested.for_task(own), own, examples, folder, said, prompt))
    finally:
        cache.close()
    kinds: dict[str, list[Answered]] = {}
    for one in found:
        kinds.setdefault(one.asked.question.kind, []).append(one)
    fitted = [_fitted(kind, answers) for kind, answers in sorted(kinds.items())]
    write(to, {one.kind: one.temperature for one in fitted})
    return fitted


def _progress(report: Report, name: str, total: int, done: int) -> None:
    report(name, done, total)


def _fitted(kind: str, answers: Sequence[Answered]) -> Fitted:
    if len(answers) < FEWEST:
        raise BadInput(f"kind {kind}: expected at least {FEWEST} questions to fit a temperature to, got {len(answers)}")
    temperature = fit([one.log_probabilities for one in answers], [one.asked.right for one in answers])
    after = figures_of(answers, Temperatures({kind: temperature}))
    return Fitted(kind, temperature, figures_of(answers), after)

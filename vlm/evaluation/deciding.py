"""Yes-or-no and multiple-choice questions of a benchmark, answered by probabilities (`Model.decide`): how often the
likeliest label is right, and how far the probabilities can be trusted, before a temperature and after.

N questions, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm.errors import BadInput
from vlm.evaluation.figures import figure, resampled_figure
from vlm.evaluation.results import Figure
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.evaluation.task_types.choice import bare, right_option
from vlm.heads.decisions.decider import Temperatures
from vlm.heads.decisions.questions import NO, YES, Choice, Decision, Question, YesNo, words
from vlm.heads.decisions.temperature import chosen
from vlm.metrics.classification import brier_scores, calibration
from vlm.metrics.statistics import interval_of_mean

KINDS = ("vqa", "choice")
"""Kinds of benchmark that ask such questions."""
NONE = "no question has one right label among yes and no, or options"
BINS = 10
"""Of the expected calibration error."""
BRIER = (0.0, 2.0)
"""The least and the most it can be."""


class Asked(NamedTuple):
    """A question of an example, and the number of the label that is right."""

    place: int
    question: Question
    right: int


class Answered(NamedTuple):
    asked: Asked
    log_probabilities: tuple[float, ...]
    cluster: str


def asked_of(job: Job) -> list[Asked]:
    """The questions with exactly one right label: of kind `vqa` those answered yes or no by all annotators, asked in
    the card's words; of kind `choice` the question alone, since the options stand in no order in the prompt."""
    found = []
    for place, example in enumerate(job.examples):
        if job.card.kind == "choice":
            options = bare(example.options)
            right = {right_option(job, example, answer) for answer in example.answers}
            if len(right) == 1 and len(options) > 1:
                try:
                    found.append(Asked(place, Choice(example.question or "", options), right.pop()))
                except BadInput:  # options that are not told apart: it has no one right label
                    continue
            continue
        said = {answer.strip().rstrip(".").lower() for answer in example.answers}
        if said in ({YES}, {NO}):
            text = job.fill(job.prompt or "{question}", question=example.question)
            found.append(Asked(place, YesNo(text), 0 if said == {YES} else 1))
    return found


def nothing_to_decide(job: Job) -> str | None:
    """A line where a benchmark asks nothing that can be decided; it is answered as it is without."""
    if job.card.kind not in KINDS:
        return f"nothing to decide: kind {job.card.kind}; decided are kinds {' and '.join(KINDS)}"
    return None if asked_of(job) else f"nothing to decide: {NONE}"


def answered(job: Job) -> list[Answered]:
    """Raises `BadInput` for a model that gives no probabilities, and where nothing can be decided."""
    if job.model.predicted is not None or not job.model.decides:
        expected = "expected a model that writes, here or behind /v1/decisions"
        raise BadInput(f"benchmark {job.card.name}: {job.model.name} gives no probabilities; {expected}")
    asked = asked_of(job)
    if not asked:
        raise BadInput(f"benchmark {job.card.name}: {NONE}")
    plain = replace(job, shown=())
    requests = [(plain.request(job.examples[one.place], words(one.question)), one.question) for one in asked]
    found = job.model.decisions(requests, job.progress)
    return [Answered(a, row, job.cluster(job.examples[a.place])) for a, row in zip(asked, found, strict=True)]


def figures_of(answers: Sequence[Answered], temperatures: Temperatures | None = None) -> dict[str, Figure]:
    """`accuracy` in percent, `calibration_error` (a fraction, ten bins) and `brier_error`, with 95 % intervals."""
    of = {} if temperatures is None else temperatures.of
    clusters = [one.cluster for one in answers]
    rights = [one.asked.right for one in answers]
    chances_NC = []
    for one in answers:
        made = Decision(one.asked.question, one.log_probabilities, of.get(one.asked.question.kind))
        chances_NC.append(list(made.probabilities.values()))
    hits = [float(int(np.argmax(row)) == right) for row, right in zip(chances_NC, rights, strict=True)]
    rows_N2 = [[max(row), hit] for row, hit in zip(chances_NC, hits, strict=True)]
    brier = interval_of_mean(brier_scores(chances_NC, rights), clusters)
    return {
        "accuracy": figure(interval_of_mean(hits, clusters), len(hits), scale=100.0),
        "calibration_error": resampled_figure(rows_N2, clusters, _calibration_error),
        "brier_error": figure(brier, len(hits), bounds=BRIER),
    }


def with_decisions(job: Job, outcome: Outcome, file: Path | None = None) -> Outcome:
    """The outcome with figures named `decided_...`, and `decided_..._after` where there is a temperature: of `file`, or
    of the `decision.json` in the model's folder."""
    answers = answered(job)
    parts = job.model.model.parts
    temperatures = chosen(file, parts.folder if parts else None)
    figures = {f"decided_{name}": one for name, one in figures_of(answers).items()}
    kinds = {one.asked.question.kind for one in answers} & set(temperatures.of)
    notes = [f"decided: {len(answers)} of {len(job.examples)} questions have one right label"]
    if kinds:
        after = figures_of(answers, temperatures)
        figures |= {f"decided_{name}_after": one for name, one in after.items() if name != "accuracy"}
        said = ", ".join(f"{kind} {temperatures.of[kind]:g}" for kind in sorted(kinds))
        notes.append(f"decided, after: temperature {said} of {temperatures.source}")
    return replace(outcome, figures=outcome.figures | figures, notes=(*outcome.notes, *notes))


def _calibration_error(rows_N2: np.ndarray) -> float:
    return calibration(rows_N2[:, 0], rows_N2[:, 1], BINS).error

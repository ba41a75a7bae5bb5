"""A model as the judge of another's replies, and how far it agrees with the exact protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from vlm.evaluation.asking import Judge
from vlm.evaluation.figures import by_category, clusters_of, mean_figure, resampled_figure
from vlm.evaluation.requests import Request
from vlm.evaluation.results import Figure, Sample
from vlm.evaluation.task_types.base import Job, Outcome

_VERDICT = re.compile(r"\b(yes|no|correct|incorrect|right|wrong|true|false)\b", re.IGNORECASE)
_GOOD = frozenset(["yes", "correct", "right", "true"])
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def judged_outcome(
    job: Job, samples: Sequence[Sample], questions: Sequence[str], main: str, figures: dict[str, Figure]
) -> Outcome:
    """The outcome with `judged` as its main figure: the mean of what the judge says, whose words are in the samples.

    A reply of the judge that cannot be read counts as wrong, and their share is a figure. `agreement` is the share of
    answers that judge and protocol both call right or both wrong (from a half on), `kappa` Cohen's, which is 0 where
    they agree as often as by chance.
    """
    assert job.card.judge is not None
    judged, unread = _judged(job, job.card.judge, samples, questions)
    figures = {"judged": mean_figure(judged, "judged", scale=100.0), **figures}
    figures["agreement"] = mean_figure(judged, "agreement", scale=100.0)
    rows = [[(s.scores["judged"] or 0) >= 0.5, (s.scores["accuracy"] or 0) >= 0.5] for s in judged]
    figures["kappa"] = resampled_figure(rows, clusters_of(judged), kappa, bounds=(-1.0, 1.0))
    figures["judge_unreadable"] = mean_figure(judged, "judge_unreadable", scale=100.0)
    assert job.judge is not None
    note = (
        f"judged by {job.judge.name} (weights {job.judge.weights[:12]}); {main} is by the protocol {job.card.protocol}"
    )
    told = (f"{unread} replies of the judge could not be read and count as wrong",) if unread else ()
    categories = by_category(judged, {"judged": 100.0, "accuracy": 100.0})
    return Outcome(list(judged), "judged", figures, categories, (note, *told))


def _judged(job: Job, judge: Judge, samples: Sequence[Sample], questions: Sequence[str]) -> tuple[list[Sample], int]:
    assert job.judge is not None
    by_id = {example.id: example for example in job.examples}
    requests = []
    for sample, question in zip(samples, questions, strict=True):
        example = by_id.get(sample.id.partition("#")[0]) or by_id.get(sample.id)
        options = "\n".join(example.options) if example is not None else ""
        prompt = job.fill(
            judge.prompt, question=question, references=" <OR> ".join(dict.fromkeys(sample.references)),
            answer=str(sample.output), options=options,
        )  # fmt: skip
        requests.append(Request(example if judge.sees else None, prompt, judge.max_tokens, judge.system))
    said = job.judge.answers(requests)
    judged, unread = [], 0
    for sample, text in zip(samples, said, strict=True):
        value = read_judgement(text, judge)
        unread += value is None
        right = value or 0.0
        agrees = float((right >= 0.5) == ((sample.scores["accuracy"] or 0.0) >= 0.5))
        scores = {"judged": right, **sample.scores, "agreement": agrees, "judge_unreadable": float(value is None)}
        judged.append(sample.model_copy(update={"scores": scores, "judgement": text}))
    return judged, unread


def read_judgement(text: str, judge: Judge) -> float | None:
    """0 to 1, or None where the judge says neither."""
    if judge.reads == "yes_no":
        found = _VERDICT.search(text)
        return None if found is None else float(found[1].lower() in _GOOD)
    numbers = _NUMBER.findall(text)
    value = float(numbers[-1]) / judge.most if numbers else None
    return value if value is not None and 0 <= value <= 1 else None


def kappa(rows_N2: np.ndarray) -> float:
    """Cohen's kappa of two yes-or-no columns; 0 where both say the same of everything."""
    a, b = rows_N2[:, 0], rows_N2[:, 1]
    chance = float(a.mean() * b.mean() + (1 - a).mean() * (1 - b).mean())
    return (float((a == b).mean()) - chance) / (1 - chance) if chance < 1 else 0.0

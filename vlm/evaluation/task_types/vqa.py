"""Open questions: a short answer against the annotators', by the benchmark's own rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.figures import by_category, clusters_of, figure, mean_figure, resampled_figure
from vlm.evaluation.requests import Turn
from vlm.evaluation.results import Figure, Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.evaluation.task_types.judging import judged_outcome
from vlm.metrics.pope import pope_answer
from vlm.metrics.protocols import PROTOCOLS
from vlm.metrics.statistics import interval_of_mean


def run(job: Job) -> Outcome:
    """Accuracy in percent; for POPE also precision, recall, F1 and the share of "yes"."""
    protocol = job.card.protocol
    prompts = [_prompt(job, example) for example in job.examples]
    requests = [
        job.request(e, prompt, partial(_answered, job)) for e, prompt in zip(job.examples, prompts, strict=True)
    ]
    outputs = job.model.answers(requests, job.progress)
    samples = []
    for example, prompt, output in zip(job.examples, prompts, outputs, strict=True):
        if not example.answers:
            raise BadInput(f"benchmark {job.card.name}: question {example.id} has no answers; the split is not public?")
        prediction = pope_answer(output) if protocol == "pope" else _READ[job.card.answer](output)
        samples.append(
            Sample(
                id=example.id,
                inputs=job.inputs(example),
                prompt=prompt,
                output=output,
                prediction=prediction,
                references=example.answers,
                scores={"accuracy": PROTOCOLS[protocol](prediction, example.answers)},
                cluster=job.cluster(example),
                category=job.category(example),
            )
        )
    figures = {"accuracy": mean_figure(samples, "accuracy", scale=100.0)}
    if protocol == "pope":
        figures |= _yes_no(samples)
    for name, key in job.card.all_right.items():
        figures[name] = _all_right(job, samples, key)
    main = "F1" if protocol == "pope" else "accuracy"
    if job.card.judge is None:
        return Outcome(samples, main, figures, by_category(samples, {"accuracy": 100.0}))
    if job.judge is None:
        note = "not judged: no model to judge was given (--judge); accuracy is by the protocol alone"
        return Outcome(samples, main, figures, by_category(samples, {"accuracy": 100.0}), (note,))
    return judged_outcome(job, samples, [e.question or "" for e in job.examples], main, figures)


def _prompt(job: Job, example: Example) -> str:
    return job.fill(job.prompt or "{question}", question=example.question)


def _answered(job: Job, example: Example) -> Turn:
    """An example with the answer that most annotators gave."""
    most = Counter(example.answers).most_common(1)
    if not most:
        raise BadInput(f"benchmark {job.card.name}: question {example.id} has no answer to be shown with it")
    return Turn(example, _prompt(job, example), most[0][0])


def _all_right(job: Job, samples: list[Sample], key: str) -> Figure:
    """The share of groups, which agree in a key of their `meta`, whose questions are all right."""
    groups: dict[str, list[float]] = {}
    for example, sample in zip(job.examples, samples, strict=True):
        if key not in example.meta:
            raise BadInput(f"benchmark {job.card.name}: all_right: question {example.id} has no {key!r} in its meta")
        groups.setdefault(str(example.meta[key]), []).append(sample.scores["accuracy"] or 0.0)
    return figure(interval_of_mean([float(min(right) == 1) for right in groups.values()]), len(groups), scale=100.0)


def _short(output: str) -> str:
    first, *_ = output.strip().splitlines() or [""]
    return first.strip().rstrip(".").lower()


_READ: dict[str, Callable[[str], str]] = {"as_said": str.strip, "short": _short}


def _yes_no(samples: list[Sample]) -> dict[str, Figure]:
    """Of rows (said yes, is yes)."""
    rows = np.array([[s.prediction == "yes", s.references[0].strip().lower() == "yes"] for s in samples], np.float64)

    def share(part: np.ndarray, whole: np.ndarray) -> float:
        return float(part.sum() / whole.sum()) if whole.sum() else 0.0

    statistics = {
        "precision": lambda r: share(r[:, 0] * r[:, 1], r[:, 0]),
        "recall": lambda r: share(r[:, 0] * r[:, 1], r[:, 1]),
        "F1": lambda r: 2 * share(r[:, 0] * r[:, 1], r[:, 0] + r[:, 1]),
        "yes_ratio": lambda r: float(r[:, 0].mean()),
    }
    clusters = clusters_of(samples)
    return {name: resampled_figure(rows, clusters, f, scale=100.0) for name, f in statistics.items()}

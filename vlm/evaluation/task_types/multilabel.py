"""Pictures with several classes each: how well the similarity to a class's name ranks the pictures that show it.

N pictures, C classes, P sentences a class, S numbers a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from vlm.errors import BadInput
from vlm.evaluation.figures import DIGITS, clusters_of, figure
from vlm.evaluation.results import Figure, Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.heads.classification import TEMPLATES, class_vectors
from vlm.metrics.classification import multilabel_average_precision
from vlm.metrics.statistics import Interval, bootstrap

TOP = 5


def run(job: Job) -> Outcome:
    """Mean average precision over the classes that occur, in percent, and each class's; no threshold is needed."""
    classes, templates = job.classes, job.card.prompts or TEMPLATES
    number = {name: i for i, name in enumerate(classes)}
    if len(classes) < 2:
        raise BadInput(
            f"benchmark {job.card.name}: dataset {job.card.dataset} names {len(classes)} classes, expected 2+"
        )
    if wrong := next((e for e in job.examples if not set(e.answers) <= set(number)), None):
        raise BadInput(f"benchmark {job.card.name}: picture {wrong.id} is of classes {wrong.answers}, not all known")
    texts = [job.fill(template, label=name) for name in classes for template in templates]
    vectors_CPS = job.model.text_vectors(texts).reshape(len(classes), len(templates), -1)
    scores_NC = job.model.media_vectors(job.examples, job.progress) @ class_vectors(vectors_CPS).T
    targets_NC = np.array([[name in e.answers for name in classes] for e in job.examples], np.float64)
    samples = []
    for example, scores_C in zip(job.examples, scores_NC, strict=True):
        order = np.argsort(-scores_C, kind="stable")[:TOP]
        wanted = len(set(example.answers))
        best = set(np.argsort(-scores_C, kind="stable")[:wanted].tolist())
        hit = sum(number[name] in best for name in set(example.answers))
        samples.append(
            Sample(
                id=example.id,
                inputs=job.inputs(example),
                prompt=job.fill(templates[0], label="{label}"),
                output=[{"item": classes[c], "score": round(float(scores_C[c]), 6)} for c in order],
                prediction=classes[order[0]],
                references=example.answers,
                scores={"found": hit / wanted if wanted else None},
                cluster=job.cluster(example),
            )
        )
    rows_NS = np.concatenate([scores_NC, targets_NC], axis=1)
    figures = {"mAP": figure(_interval(rows_NS, clusters_of(samples)), len(samples), scale=100.0)}
    per_class = multilabel_average_precision(scores_NC, targets_NC).per_class
    categories = {
        name: {"AP": Figure(value=round(100 * value, DIGITS), n=int(targets_NC[:, i].sum()), scale=100.0)}
        for i, (name, value) in enumerate(zip(classes, per_class, strict=True))
        if value is not None
    }
    note = f"{len(categories)} of {len(classes)} classes occur; the mean is over those"
    return Outcome(samples, "mAP", figures, categories, (note,))


def _interval(rows_NS: np.ndarray, clusters: Sequence[str]) -> Interval:
    """Two bootstrap errors to either side: in a resample pictures are there twice, which lifts every average precision,
    so that the resamples themselves lie above the value."""
    found = bootstrap(rows_NS, clusters, _map)
    if found.error is None:
        return found
    half = NormalDist().inv_cdf(0.975) * found.error
    return Interval(found.value, found.value - half, found.value + half, found.error)


def _map(rows_NS: np.ndarray) -> float:
    half = rows_NS.shape[1] // 2
    there = rows_NS[:, half:].any(axis=0)
    if not there.any():
        return 0.0
    return multilabel_average_precision(rows_NS[:, :half][:, there], rows_NS[:, half:][:, there]).value

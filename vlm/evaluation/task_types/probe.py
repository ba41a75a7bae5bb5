"""Classification by frozen features: a linear probe learned from a split, or the mean of a few pictures a class.

N pictures, C classes, S shared width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.figures import by_category, mean_figure
from vlm.evaluation.results import Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.metrics.linear_probe import choose_strength, class_means, fit

TOP = 5


def run(job: Job) -> Outcome:
    """A linear probe: softmax regression on the train split's vectors, its strength chosen on a fifth held out."""
    number, labels = _numbers(job), _labels(job, job.examples)
    train = job.model.media_vectors(
        job.train, lambda done: job.progress(done * len(job.examples) // len(job.train) // 2)
    )
    learned = _labels(job, job.train)
    strength = choose_strength(train, learned, len(number))
    probe = fit(train, learned, len(number), strength)
    half = len(job.examples) // 2
    scores_NC = probe.scores(job.model.media_vectors(job.examples, lambda done: job.progress(half + done // 2)))
    samples = []
    for example, label, scores_C in zip(job.examples, labels, scores_NC, strict=True):
        order = np.argsort(-scores_C, kind="stable")[:TOP]
        right = {"accuracy": float(order[0] == label)}
        if len(number) > TOP:
            right[f"accuracy@{TOP}"] = float(label in order)
        samples.append(_sample(job, example, right, [(job.classes[c], float(scores_C[c])) for c in order]))
    figures = {key: mean_figure(samples, key, scale=100.0) for key in samples[0].scores}
    note = f"learned from {len(job.train):,} pictures of split {job.card.train_split}, strength {strength:g}"
    return Outcome(samples, "accuracy", figures, by_category(samples, {"accuracy": 100.0}), (note,))


def few_shot(job: Job) -> Outcome:
    """The nearest mean of `shots` pictures a class, averaged over `draws` random choices of them."""
    card, labels, train = job.card, _labels(job, job.examples), _labels(job, job.train)
    least = np.bincount(train, minlength=len(job.classes)).min()
    if least < max(card.shots):
        raise BadInput(
            f"benchmark {card.name}: shots: a class has {least} pictures in split {card.train_split}, "
            f"expected {max(card.shots)} or more"
        )
    orders = [_drawn(train, len(job.classes), max(card.shots), draw) for draw in range(card.draws)]
    wanted = sorted({int(row) for order in orders for row in order.ravel()})
    row_of = {row: i for i, row in enumerate(wanted)}
    shown_NS = job.model.media_vectors([job.train[row] for row in wanted])
    asked_NS = job.model.media_vectors(job.examples, job.progress)
    right: dict[str, NDArray[np.float64]] = {}
    told: list[tuple[str, float]] = []
    for shots in card.shots:
        hits = []
        for order in orders:
            rows = np.array([row_of[int(row)] for row in order[:, :shots].ravel()])
            means_CS = class_means(shown_NS[rows], np.repeat(np.arange(len(job.classes)), shots), len(job.classes))
            near_NC = asked_NS @ means_CS.T
            hits.append(near_NC.argmax(axis=1) == labels)
            if shots == max(card.shots) and len(hits) == 1:
                told = [(job.classes[c], float(near_C[c])) for near_C in near_NC for c in [int(near_C.argmax())]]
        right[f"accuracy_{shots}_shot"] = np.mean(hits, axis=0)
    samples = [
        _sample(job, example, {key: float(values[i]) for key, values in right.items()}, [told[i]])
        for i, example in enumerate(job.examples)
    ]
    main = f"accuracy_{max(card.shots)}_shot"
    figures = {key: mean_figure(samples, key, scale=100.0) for key in right}
    note = f"the mean of {card.draws} draws from split {card.train_split}"
    return Outcome(samples, main, figures, by_category(samples, {main: 100.0}), (note,))


def _drawn(labels_N: NDArray[np.int64], classes: int, shots: int, draw: int) -> NDArray[np.int64]:
    """Rows `[C, shots]`, the same for a draw whatever the machine."""
    chance = np.random.default_rng(draw)
    return np.stack([chance.permutation(np.flatnonzero(labels_N == label))[:shots] for label in range(classes)])


def _sample(job: Job, example: Example, right: dict[str, float], best: list[tuple[str, float]]) -> Sample:
    return Sample(
        id=example.id,
        inputs=job.inputs(example),
        output=[{"item": name, "score": round(score, 6)} for name, score in best],
        prediction=best[0][0],
        references=example.answers,
        scores={**right},
        cluster=job.cluster(example),
        category=example.answers[0],
    )


def _numbers(job: Job) -> dict[str, int]:
    if len(job.classes) < 2:
        raise BadInput(f"benchmark {job.card.name}: dataset {job.card.dataset} names {len(job.classes)} classes, "
                       "expected 2+")  # fmt: skip
    return {name: i for i, name in enumerate(job.classes)}


def _labels(job: Job, examples: Sequence[Example]) -> NDArray[np.int64]:
    number = _numbers(job)
    if wrong := next((e for e in examples if not e.answers or e.answers[0] not in number), None):
        raise BadInput(f"benchmark {job.card.name}: picture {wrong.id} is of class {wrong.answers}, not a known one")
    return np.array([number[example.answers[0]] for example in examples])

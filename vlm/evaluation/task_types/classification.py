"""Zero-shot classification: the class whose name, put into sentences, lies nearest to the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlm.errors import BadInput, unknown
from vlm.evaluation.figures import clusters_of, mean_figure, resampled_figure
from vlm.evaluation.predictions import Predicted
from vlm.evaluation.results import Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.heads.classification import TEMPLATES, class_vectors, probabilities
from vlm.metrics.classification import mean_class_recall, top_k_accuracy

TOP = 5


def run(job: Job) -> Outcome:
    """Accuracy of the first and of the best five, and the mean over classes of their recall, in percent.

    Classes are compared as `model.classify` compares them; `confidence` is the likeliest one's probability.
    """
    classes, templates = job.classes, job.card.prompts or TEMPLATES
    if len(classes) < 2:
        raise BadInput(
            f"benchmark {job.card.name}: dataset {job.card.dataset} names {len(classes)} classes, expected 2+"
        )
    number = {name: i for i, name in enumerate(classes)}
    if wrong := next((e for e in job.examples if not e.answers or e.answers[0] not in number), None):
        raise BadInput(f"benchmark {job.card.name}: picture {wrong.id} is of class {wrong.answers}, not a known one")
    labels = np.array([number[example.answers[0]] for example in job.examples])
    if job.model.predicted is not None:
        ranked = _ranked(job, job.model.predicted, number)
        sure: list[float | None] = [None] * len(ranked)
        least = min((len(order) for order in ranked if order), default=0)
        ks = [k for k in (1, TOP) if k < len(classes) and k <= max(least, 1)]
        accuracy = {k: [float(y in order[:k]) for y, order in zip(labels, ranked, strict=True)] for k in ks}
        output: list[list[dict[str, Any]]] = [[{"item": classes[c], "score": None} for c in o] for o in ranked]
    else:
        texts = [job.fill(template, label=name) for name in classes for template in templates]
        vectors_CPD = job.model.text_vectors(texts).reshape(len(classes), len(templates), -1)
        media_ID = job.model.media_vectors(job.examples, job.progress)
        chance_IC = probabilities(media_ID, class_vectors(vectors_CPD), job.model.model.similarity_scale)
        ranked = [np.argsort(-chances, kind="stable")[:TOP].tolist() for chances in chance_IC]
        sure = chance_IC.max(axis=1).tolist()
        accuracy = {k: top_k_accuracy(chance_IC, labels, (k,))[k].per_item for k in (1, TOP) if k < len(classes)}
        output = [
            [{"item": classes[c], "score": round(float(chances[c]), 6)} for c in order]
            for order, chances in zip(ranked, chance_IC, strict=True)
        ]
    samples = [
        Sample(
            id=example.id,
            inputs=job.inputs(example),
            prompt=job.fill(templates[0], label="{label}"),
            output=output[i],
            prediction=classes[ranked[i][0]] if ranked[i] else None,
            references=example.answers,
            scores={"accuracy": accuracy[1][i], "confidence": sure[i]}
            | {f"accuracy@{k}": values[i] for k, values in accuracy.items() if k > 1},
            cluster=job.cluster(example),
            category=example.answers[0],
        )
        for i, example in enumerate(job.examples)
    ]
    figures = {key: mean_figure(samples, key, scale=100.0) for key in samples[0].scores if key != "confidence"}
    rows = [[number[s.references[0]], s.scores["accuracy"] or 0.0] for s in samples]
    figures["mean_class_recall"] = resampled_figure(rows, clusters_of(samples), _mean_class_recall, scale=100.0)
    categories = {
        name: {"recall": mean_figure([s for s in samples if s.category == name], "accuracy", scale=100.0)}
        for name in classes
        if any(s.category == name for s in samples)
    }
    return Outcome(samples, "accuracy", figures, categories)


def _ranked(job: Job, predicted: Predicted, number: Mapping[str, int]) -> list[list[int]]:
    """The classes as a file has them for each picture, the best first."""
    found = []
    for example in job.examples:
        ranking = predicted.ranking(example.id) or []
        if strange := next((name for name in ranking if name not in number), None):
            raise unknown(f"class in {predicted.path}: id {example.id!r}:", strange, number)
        found.append([number[name] for name in ranking])
    return found


def _mean_class_recall(rows_N2: np.ndarray) -> float:
    return mean_class_recall(rows_N2[:, 1], rows_N2[:, 0].astype(int)).value

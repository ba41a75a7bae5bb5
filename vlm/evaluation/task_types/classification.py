"""Zero-shot classification: the class whose name, put into sentences, lies nearest to the picture."""

from __future__ import annotations

import numpy as np

from vlm.errors import BadInput
from vlm.evaluation.figures import clusters_of, mean_figure, resampled_figure
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
    if unknown := next((e for e in job.examples if not e.answers or e.answers[0] not in number), None):
        raise BadInput(
            f"benchmark {job.card.name}: picture {unknown.id} is of class {unknown.answers}, not a known one"
        )
    texts = [job.fill(template, label=name) for name in classes for template in templates]
    vectors_CPD = job.model.text_vectors(texts).reshape(len(classes), len(templates), -1)
    media_ID = job.model.media_vectors(job.examples, job.progress)
    chance_IC = probabilities(media_ID, class_vectors(vectors_CPD), job.model.model.similarity_scale)
    labels = np.array([number[example.answers[0]] for example in job.examples])
    accuracy = {k: top_k_accuracy(chance_IC, labels, (k,))[k].per_item for k in (1, TOP) if k < len(classes)}
    samples = []
    for i, (example, chances) in enumerate(zip(job.examples, chance_IC, strict=True)):
        order = np.argsort(-chances, kind="stable")[:TOP]
        scores: dict[str, float | None] = {"accuracy": accuracy[1][i], "confidence": float(chances[order[0]])}
        if TOP in accuracy:
            scores[f"accuracy@{TOP}"] = accuracy[TOP][i]
        samples.append(
            Sample(
                id=example.id,
                inputs=job.inputs(example),
                prompt=job.fill(templates[0], label="{label}"),
                output=[{"item": classes[c], "score": round(float(chances[c]), 6)} for c in order],
                prediction=classes[order[0]],
                references=example.answers,
                scores=scores,
                cluster=job.cluster(example),
                category=example.answers[0],
            )
        )
    figures = {key: mean_figure(samples, key, scale=100.0) for key in samples[0].scores if key != "confidence"}
    rows = [[number[s.references[0]], s.scores["accuracy"] or 0.0] for s in samples]
    figures["mean_class_recall"] = resampled_figure(rows, clusters_of(samples), _mean_class_recall, scale=100.0)
    categories = {
        name: {"recall": mean_figure([s for s in samples if s.category == name], "accuracy", scale=100.0)}
        for name in classes
        if any(s.category == name for s in samples)
    }
    return Outcome(samples, "accuracy", figures, categories)


def _mean_class_recall(rows_N2: np.ndarray) -> float:
    return mean_class_recall(rows_N2[:, 1], rows_N2[:, 0].astype(int)).value

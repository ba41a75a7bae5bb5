"""Zero-shot classification: the class whose name, put into sentences, lies nearest to the picture."""

from __future__ import annotations

import numpy as np

from vlm.errors import BadInput
from vlm.evaluation.figures import clusters_of, mean_figure, resampled_figure
from vlm.evaluation.kinds.base import Job, Outcome
from vlm.evaluation.results import Sample

TOP = 5


def run(job: Job) -> Outcome:
    """Accuracy of the first and of the best five, and the mean over classes of their recall, in percent.

    A class's vector is the mean of its unit vectors over the card's prompts, made unit length again (Radford et al.
    2021, section 3.1.4). `confidence` is the softmax over the classes at the model's own temperature.
    """
    classes, templates = job.classes, job.card.prompts or ("a photo of a {label}.",)
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
    vectors_CPD = job.subject.text_vectors(texts).reshape(len(classes), len(templates), -1)
    class_CD = vectors_CPD.mean(axis=1, dtype=np.float64)
    class_CD /= np.linalg.norm(class_CD, axis=1, keepdims=True)
    logits_IC = job.subject.model.similarity_scale * (
        job.subject.media_vectors(job.examples, job.progress) @ class_CD.T
    )
    chance_IC = np.exp(logits_IC - logits_IC.max(axis=1, keepdims=True))
    chance_IC /= chance_IC.sum(axis=1, keepdims=True)
    samples = []
    for example, chances in zip(job.examples, chance_IC, strict=True):
        order = np.argsort(-chances, kind="stable")[:TOP]
        right = number[example.answers[0]]
        # Equal chances: the right class stands in the middle of its equals.
        rank = 1 + float((chances > chances[right]).sum()) + float((chances == chances[right]).sum() - 1) / 2
        scores: dict[str, float | None] = {"accuracy": float(rank < 2), "confidence": float(chances[order[0]])}
        if len(classes) > TOP:
            scores["accuracy@5"] = float(rank < TOP + 1)
        samples.append(
            Sample(
                id=example.id,
                inputs=job.inputs(example),
                prompt=job.fill(templates[0], label="{label}"),
                output=[{"item": classes[i], "score": round(float(chances[i]), 6)} for i in order],
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
    """Of rows (class, right): the mean over the classes there are."""
    label = rows_N2[:, 0].astype(int)
    return float((np.bincount(label, rows_N2[:, 1])[np.unique(label)] / np.bincount(label)[np.unique(label)]).mean())

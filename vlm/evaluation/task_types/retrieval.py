"""Retrieval both ways: every caption against every picture or clip, and back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vlm.errors import BadInput
from vlm.evaluation.figures import clusters_of, mean_figure, resampled_figure
from vlm.evaluation.model_under_test import ModelUnderTest
from vlm.evaluation.predictions import Predicted
from vlm.evaluation.results import Figure, Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.metrics.retrieval import ranks
from vlm.vectors import Vectors

KS = (1, 5, 10)
TOP = 5
Caption = tuple[int, int, str]
"""The row of its picture, its number among that one's, and the text."""
Best = list[tuple[int, float | None]]
"""Candidates and their similarities, where they are known."""


def run(job: Job) -> Outcome:
    """Recall in percent and ranks, both ways; a picture found by any of its captions counts, ties at their mean rank.

    A sample is a query: its five best candidates and the rank of its first right one.
    """
    if bare := next((e for e in job.examples if not e.captions), None):
        raise BadInput(f"benchmark {job.card.name}: picture {bare.id} has no captions; nothing could find it")
    captions = [
        (row, number, caption)
        for row, example in enumerate(job.examples)
        for number, caption in enumerate(example.captions)
    ]
    pictures, texts = len(job.examples), len(captions)
    if job.model.predicted is not None:
        return _ranked(job, captions, job.model.predicted)
    # Pictures and texts are half of the work each, told as that many pictures.
    media_ID = unit(job.model.media_vectors(job.examples, lambda done: job.progress(done // 2)))
    texts_TD = unit(
        job.model.text_vectors(
            [caption for _, _, caption in captions],
            lambda done: job.progress((pictures + pictures * done // texts) // 2),
        )
    )
    image_of_text = np.array([row for row, _, _ in captions])
    names = [job.cluster(example) for example in job.examples]

    found = _search(job.model, texts_TD, media_ID, image_of_text, np.arange(len(names)))
    samples = _of_texts(job, captions, found)
    found = _search(job.model, media_ID, texts_TD, np.arange(len(names)), image_of_text)
    return _outcome(job, captions, [*samples, *_of_pictures(job, captions, found)])


def _ranked(job: Job, captions: list[Caption], predicted: Predicted) -> Outcome:
    """As rankings in a file have it, either way or both; what is not in a ranking is not found."""
    pictures = [example.id for example in job.examples]
    texts = [f"{pictures[row]}#{number}" for row, number, _ in captions]
    rows = [row for row, _, _ in captions]
    samples: list[Sample] = []
    if predicted.has(texts) or not predicted.has(pictures):
        samples += _of_texts(job, captions, _listed(predicted, texts, pictures, rows, list(range(len(pictures)))))
    if predicted.has(pictures):
        samples += _of_pictures(job, captions, _listed(predicted, pictures, texts, list(range(len(pictures))), rows))
    return _outcome(job, captions, samples)


def _listed(
    predicted: Predicted, queries: list[str], candidates: list[str], group_Q: list[int], group_C: list[int]
) -> list[tuple[float, Best]]:
    """Of each query the rank of its first right candidate, infinite where it is not there, and the best candidates."""
    place = {name: i for i, name in enumerate(candidates)}
    found: list[tuple[float, Best]] = []
    for query, group in zip(queries, group_Q, strict=True):
        ranking = predicted.ranking(query) or []
        if strange := next((name for name in ranking if name not in place), None):
            raise BadInput(f"{predicted.path}: id {query!r}: ranks {strange!r}; expected ids like {candidates[0]!r}")
        right = [n for n, name in enumerate(ranking, 1) if group_C[place[name]] == group]
        found.append((float(right[0]) if right else math.inf, [(place[name], None) for name in ranking[:TOP]]))
    return found


def _of_texts(job: Job, captions: list[Caption], found: list[tuple[float, Best]]) -> list[Sample]:
    names = [job.cluster(example) for example in job.examples]
    return [
        Sample(
            id=f"{job.examples[row].id}#{number}",
            inputs={},
            prompt=caption,
            output=[{"item": names[i], "score": score} for i, score in best],
            prediction=names[best[0][0]] if best else None,
            references=(names[row],),
            scores=_scores("text_to_image", rank),
            cluster=names[row],
            category="text_to_image",
        )
        for (row, number, caption), (rank, best) in zip(captions, found, strict=True)
    ]


def _of_pictures(job: Job, captions: list[Caption], found: list[tuple[float, Best]]) -> list[Sample]:
    return [
        Sample(
            id=example.id,
            inputs=job.inputs(example),
            output=[{"item": captions[i][2], "score": score} for i, score in best],
            prediction=captions[best[0][0]][2] if best else None,
            references=example.captions,
            scores=_scores("image_to_text", rank),
            cluster=job.cluster(example),
            category="image_to_text",
        )
        for example, (rank, best) in zip(job.examples, found, strict=True)
    ]


def _outcome(job: Job, captions: list[Caption], samples: list[Sample]) -> Outcome:
    figures: dict[str, Figure] = {}
    for way, candidates in (("text_to_image", len(job.examples)), ("image_to_text", len(captions))):
        own = [s for s in samples if s.category == way]
        if own:
            figures |= {f"{way}_R@{k}": mean_figure(own, f"{way}_R@{k}", scale=100.0, joint=True) for k in KS}
        if own and all(s.scores["rank"] is not None for s in own):
            rows, clusters, worst = [[s.scores["rank"] or 0.0] for s in own], clusters_of(own), (1.0, float(candidates))
            figures[f"{way}_median_rank"] = resampled_figure(rows, clusters, _median, bounds=worst)
            figures[f"{way}_mean_rank"] = resampled_figure(rows, clusters, _mean, bounds=worst)
    main = next(name for name in ("text_to_image_R@1", "image_to_text_R@1") if name in figures)
    return Outcome(samples, main, figures, notes=(f"{len(captions)} texts, {len(job.examples)} pictures or clips",))


def _median(rows_N1: NDArray[np.float64]) -> float:
    return float(np.median(rows_N1))


def _mean(rows_N1: NDArray[np.float64]) -> float:
    return float(rows_N1.mean())


def _search(
    model: ModelUnderTest, queries_QD: Vectors, candidates_CD: Vectors, group_Q: NDArray, group_C: NDArray
) -> list[tuple[float, Best]]:
    """The rank of each query's first right candidate and its `TOP` best candidates."""
    found: list[tuple[float, Best]] = []
    for similarity_BC in model.similarities(queries_QD, candidates_CD):
        rank = ranks(similarity_BC, group_Q[len(found) : len(found) + len(similarity_BC)], group_C, "mean")
        order = np.argsort(-similarity_BC, axis=1, kind="stable")[:, :TOP]
        for row, best, r in zip(similarity_BC, order, rank, strict=True):
            found.append((float(r), [(int(i), round(float(row[i]), 4)) for i in best]))
    return found


def unit(vectors_ND: Vectors) -> Vectors:
    """Of length 1 to the last bit, as an index keeps vectors that it is given; a model's are so to a few."""
    rows_ND = vectors_ND.astype(np.float64)
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float32)


def _scores(way: str, rank: float) -> dict[str, float | None]:
    return {"rank": rank if rank < math.inf else None, **{f"{way}_R@{k}": float(rank < k + 1) for k in KS}}

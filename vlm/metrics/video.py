"""Metrics on moments of a video: temporal IoU, moment retrieval (QVHighlights), alignment of stories (SODA).

A window is (start, end) in seconds. Legend: G true moments, P predicted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vlm.errors import BadInput

Window = Sequence[float]
THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


def temporal_iou(a: Window, b: Window) -> float:
    """Intersection over union of two windows, equal to densevid_eval (which adds 1e-8 to the union)."""
    intersection = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = min(max(a[1], b[1]) - min(a[0], b[0]), a[1] - a[0] + b[1] - b[0])
    return intersection / (union + 1e-8)


@dataclass(frozen=True)
class MomentRetrieval:
    """Shares by IoU threshold: average precision, its mean over the thresholds, and recall of the first window.

    `mean_iou` is the first window's IoU with the true window it meets best, averaged over the queries.
    """

    average_precision: dict[float, float]
    mean_average_precision: float
    recall_at_1: dict[float, float]
    mean_iou: float


def moment_retrieval(
    predicted: Sequence[Sequence[Sequence[float]]],
    relevant: Sequence[Sequence[Window]],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    most: int | None = 10,
) -> MomentRetrieval:
    """QVHighlights moment retrieval (Lei et al. 2021), equal to `standalone_eval` of moment_detr before its rounding.

    Args:
        predicted: for each query its windows as (start, end, score). The first of them counts for recall at 1, the
            first `most` for average precision, there in order of score.
        relevant: for each query its true windows, at least one.
        thresholds: a window is found if its IoU is at least this.
        most: windows a query that count; None for all.
    """
    if len(predicted) != len(relevant) or not relevant:
        raise BadInput(f"{len(predicted)} predictions for {len(relevant)} queries; expected one each and at least one")
    precision, best = [], []
    for i, (windows, true) in enumerate(zip(predicted, relevant, strict=True)):
        if not true:
            raise BadInput(f"query {i} has no relevant window; expected at least one")
        ranked = sorted(windows[:most], key=lambda w: -w[2])
        overlap_PG = np.array([[_exact_iou(p, g) for g in true] for p in ranked]).reshape(-1, len(true))
        precision.append([_average_precision(overlap_PG, threshold) for threshold in thresholds])
        best.append(max(_exact_iou(windows[0], g) for g in true) if windows else 0.0)
    ap = np.mean(precision, axis=0).tolist()
    recall = {t: sum(b >= t for b in best) / len(best) for t in thresholds}
    return MomentRetrieval(dict(zip(thresholds, ap, strict=True)), sum(ap) / len(ap), recall, sum(best) / len(best))


def _exact_iou(a: Window, b: Window) -> float:
    intersection = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - intersection
    return intersection / union if union else 0.0


def _average_precision(overlap_PG: np.ndarray, threshold: float) -> float:
    """Interpolated as in Pascal VOC: each prediction takes the best true window that is free and overlaps enough."""
    predicted, true = overlap_PG.shape
    if not predicted:
        return 0.0
    free = np.ones(true, dtype=bool)
    hit = np.zeros(predicted)
    for p, row in enumerate(overlap_PG):
        for g in row.argsort()[::-1]:
            if row[g] >= threshold and free[g]:
                free[g], hit[p] = False, 1
                break
    found = hit.cumsum()
    precision = np.append(found / np.arange(1, predicted + 1), 0.0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((hit * precision[:-1]).sum() / true)


@dataclass(frozen=True)
class Alignment:
    """The best alignment in order: its total, the pairs (true, predicted), and the total over the number of each."""

    score: float
    pairs: list[tuple[int, int]]
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def soda_alignment(scores_GP: ArrayLike) -> Alignment:
    """The order-preserving one-to-one alignment with the largest total (SODA, Fujita et al. 2020, section 3.1).

    For SODA_c `scores_GP` is IoU times the caption score. Over several videos SODA sums the totals and the counts.
    Total, precision and recall equal the reference. Its way back through the table can name pairs that do not add up to
    the total (it takes the last match of a row, best path or not); these do. Pairs that add nothing are left out.
    """
    scores = np.asarray(scores_GP, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise BadInput(f"scores have shape {scores.shape}; expected [true moments, predicted moments]")
    true, predicted = scores.shape
    best = np.zeros((true + 1, predicted + 1))
    for g in range(true):
        for p in range(predicted):
            best[g + 1, p + 1] = max(best[g, p + 1], best[g + 1, p], best[g, p] + scores[g, p])
    pairs: list[tuple[int, int]] = []
    g, p = true, predicted
    while g and p:
        if best[g, p] == best[g - 1, p]:
            g -= 1
        elif best[g, p] == best[g, p - 1]:
            p -= 1
        else:
            g, p = g - 1, p - 1
            pairs.append((g, p))
    total = float(best[-1, -1])
    return Alignment(total, pairs[::-1], total / predicted, total / true)

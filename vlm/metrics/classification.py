"""Classification: accuracy of the first k, class recall, average precision and calibration, from scores.

Legend: N items, C classes, B bins. A zero-shot classifier's scores are similarities with the classes' prompts; equal
ones are common there (quantised scores, classes of one name), so what a tie counts is said by name, as for retrieval:

- `"mean"`: the chance of being right if equals come in random order.
- `"optimistic"`: the right class comes first among its equals.
- `"pessimistic"`: the right class comes last among its equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm.errors import BadInput, unknown
from vlm.metrics.score import Score

Ties = Literal["mean", "optimistic", "pessimistic"]


def top_k_accuracy(
    scores_NC: ArrayLike, labels_N: ArrayLike, ks: Sequence[int] = (1, 5), *, ties: Ties = "mean"
) -> dict[int, Score]:
    """For each k the share of items whose class is among the k best, as fractions, with the value of each item.

    An item is worth 0 or 1, or with `ties="mean"` what is between where a tie reaches across place k. With as many
    classes as k or fewer all is right. Raises `BadInput` for shapes that do not fit, labels that are no class, scores
    that are not finite.
    """
    scores, labels = _scored(scores_NC), _labels(labels_N)
    if len(labels) != len(scores):
        raise BadInput(f"{len(labels)} labels for {len(scores)} rows of scores; expected one each")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise BadInput(f"labels {labels.min()} to {labels.max()} for {scores.shape[1]} classes")
    if not ks or min(ks) < 1:
        raise BadInput(f"accuracy in the first k for k in {list(ks)}; expected one or more positive numbers")
    if ties not in get_args(Ties):
        raise unknown("ties", ties, get_args(Ties))
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    above = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1)  # itself among them
    found = {}
    for k in ks:
        items = {
            "optimistic": above < k,
            "pessimistic": above + equal <= k,
            "mean": np.clip((k - above) / equal, 0, 1),
        }[ties].astype(np.float64)
        found[k] = Score(float(items.mean()), items.tolist())
    return found


@dataclass(frozen=True)
class ClassRecall:
    """Mean over the classes that occur, and each one's share of right items."""

    value: float
    per_class: dict[int, float]


def mean_class_recall(correct_N: ArrayLike, labels_N: ArrayLike) -> ClassRecall:
    """Accuracy of each class, averaged over the classes that occur among the labels, whatever their size.

    This is "mean per class accuracy" and scikit-learn's `balanced_accuracy_score`. `correct_N` says how right each item
    is, 0 to 1: `predicted == labels`, or `top_k_accuracy(...)[1].per_item`, in which ties are already decided.
    """
    correct, labels = _correct(correct_N), _labels(labels_N)
    if len(labels) != len(correct):
        raise BadInput(f"{len(labels)} labels for {len(correct)} items; expected one each")
    per_class = {int(c): float(correct[labels == c].mean()) for c in np.unique(labels)}
    return ClassRecall(sum(per_class.values()) / len(per_class), per_class)


@dataclass(frozen=True)
class AveragePrecision:
    """Mean over the classes that occur, and each class's value; None for a class that no item has."""

    value: float
    per_class: list[float | None]


def multilabel_average_precision(scores_NC: ArrayLike, targets_NC: ArrayLike) -> AveragePrecision:
    """mAP: each class ranks all items, and its average precision is scikit-learn's `average_precision_score`.

    Equal scores are one step of the precision-recall curve, so the order of the items changes nothing; there is no
    interpolation. A class without a right item has no average precision and is left out of the mean (scikit-learn
    warns and counts 0). Raises `BadInput` where shapes differ, targets are not 0 or 1, or no class has an item.
    """
    scores, targets = _scored(scores_NC), np.asarray(targets_NC)
    if targets.shape != scores.shape:
        raise BadInput(f"targets of shape {targets.shape} for scores of shape {scores.shape}; expected the same")
    if not np.isin(targets, (0, 1)).all():
        raise BadInput(f"targets hold {targets[~np.isin(targets, (0, 1))][0]}; expected 0 and 1 only")
    per_class = [_average_precision(s, t) if t.any() else None for s, t in zip(scores.T, targets.T == 1, strict=True)]
    there = [value for value in per_class if value is not None]
    if not there:
        raise BadInput(f"none of {len(per_class)} classes has a right item; expected at least one")
    return AveragePrecision(sum(there) / len(there), per_class)


@dataclass(frozen=True)
class Bin:
    """Items with a confidence above `low` and up to `high`; the means are None where there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error, a fraction, and the bins of a reliability diagram."""

    error: float
    bins: list[Bin]


def calibration(confidence_N: ArrayLike, correct_N: ArrayLike, bins: int = 10) -> Calibration:
    """Expected calibration error (Guo et al. 2017, equation 3): how far confidence is from accuracy, bin by bin.

    Bins are of equal width, (low, high], the first with 0; each weighs as many items as it has. The value depends on
    the number of bins: give it with the figure. Raises `BadInput` where a value is outside [0, 1] or the counts differ.
    """
    confidence, correct = _correct(confidence_N, "confidences"), _correct(correct_N)
    if len(confidence) != len(correct):
        raise BadInput(f"{len(confidence)} confidences for {len(correct)} items; expected one each")
    if bins < 1:
        raise BadInput(f"{bins} bins; expected one or more")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found, error = [], 0.0
    for b in range(bins):
        inside = place == b
        sure, right = (
            (float(confidence[inside].mean()), float(correct[inside].mean())) if inside.any() else (None, None)
        )
        found.append(Bin(float(edges[b]), float(edges[b + 1]), int(inside.sum()), sure, right))
        if sure is not None and right is not None:
            error += inside.mean() * abs(sure - right)
    return Calibration(float(error), found)


def brier_scores(chances_NC: Sequence[ArrayLike], right_N: Sequence[int]) -> list[float]:
    """Of each item the squared distance of its probabilities `[C]` from what was so, 0 to 2, lower is better (Brier
    1950, equation 2); C may differ. Raises `BadInput` for what are no probabilities, and a label that is not there."""
    if len(chances_NC) != len(right_N):
        raise BadInput(f"{len(chances_NC)} items for {len(right_N)} labels; expected one each")
    found = []
    for number, (row, label) in enumerate(zip(chances_NC, right_N, strict=True)):
        chances_C = _correct(row, f"probabilities of item {number}").copy()
        if abs(chances_C.sum() - 1) > 1e-3:
            raise BadInput(f"probabilities of item {number} sum to {chances_C.sum():g}; expected 1")
        if not 0 <= label < len(chances_C):
            raise BadInput(f"label of item {number} is {label}; expected 0 to {len(chances_C) - 1}")
        chances_C[label] -= 1
        found.append(float(chances_C @ chances_C))
    return found


def _average_precision(scores_N: NDArray[np.float64], right_N: NDArray[np.bool_]) -> float:
    order = np.argsort(-scores_N, kind="stable")
    last_of_equals = np.append(np.diff(scores_N[order]) != 0, True)
    found = right_N[order].cumsum()[last_of_equals]
    seen = np.flatnonzero(last_of_equals) + 1
    return float((np.diff(found, prepend=0) * found / seen).sum() / found[-1])


def _scored(scores_NC: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(scores_NC, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise BadInput(f"scores have shape {scores.shape}; expected [items, classes]")
    if not np.isfinite(scores).all():
        raise BadInput(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    return scores


def _labels(labels_N: ArrayLike) -> NDArray[Any]:
    labels = np.asarray(labels_N)
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu":
        raise BadInput(f"labels are {labels.dtype} of shape {labels.shape}; expected a list of integers")
    return labels


def _correct(values_N: ArrayLike, what: str = "items") -> NDArray[np.float64]:
    values = np.asarray(values_N, np.float64)
    if values.ndim != 1 or not values.size:
        raise BadInput(f"{what} have shape {values.shape}; expected a list of one or more")
    outside = ~((values >= 0) & (values <= 1))  # NaN too
    if outside.any():
        raise BadInput(f"{int(outside.sum())} {what} are not from 0 to 1 (first: {values[outside][0]})")
    return values

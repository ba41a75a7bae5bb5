"""Scores of a classifier's files: one label an item, or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlm.errors import BadInput
from vlm.evaluation.scoring.files import load_arrays
from vlm.evaluation.scoring.scores import Scored
from vlm.metrics.classification import calibration, mean_class_recall, multilabel_average_precision, top_k_accuracy

TOP = 5
BINS = 10


def score_classes(file: Path) -> Scored:
    """`scores` [items, classes] and `labels` of an .npz, as fractions.

    Labels [items] are classes by number: accuracy of the first and of the best five, the mean over classes of their
    recall and, where scores are probabilities, the calibration error in ten bins; equal scores share what they win.
    Labels [items, classes] of 0 and 1 are of several classes an item: mean average precision over the classes.
    """
    arrays = load_arrays(file, ("scores", "labels"))
    scores, labels = arrays["scores"], arrays["labels"]
    if scores.dtype.kind not in "iuf" or labels.dtype.kind not in "biu":
        raise BadInput(f"{file}: scores are {scores.dtype} and labels {labels.dtype}; expected numbers and integers")
    try:
        return _several(scores, labels) if labels.ndim == 2 else _single(scores, labels)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None


def _single(scores: np.ndarray, labels: np.ndarray) -> Scored:
    found = top_k_accuracy(scores, labels, (1, TOP))
    metrics = {f"accuracy@{k}": score.value for k, score in found.items() if k < scores.shape[1]}
    metrics["mean_class_recall"] = mean_class_recall(found[1].per_item, labels).value
    if (scores < 0).any() or np.abs(scores.sum(axis=1) - 1).max() > 1e-3:
        return Scored(metrics, not_available={"calibration_error": "the scores of an item do not sum to 1"})
    sure = np.minimum(scores.max(axis=1), 1)
    return Scored(metrics | {"calibration_error": calibration(sure, found[1].per_item, BINS).error})


def _several(scores: np.ndarray, labels: np.ndarray) -> Scored:
    found = multilabel_average_precision(scores, labels)
    absent = sum(value is None for value in found.per_class)
    told = [f"{absent} of {len(found.per_class)} classes have no item and are left out"] if absent else []
    return Scored({"mAP": found.value}, warnings=told)

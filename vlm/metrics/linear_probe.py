"""A linear classifier on frozen features: softmax regression, as scikit-learn's `LogisticRegression` fits it.

N items, D numbers of a feature, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm.errors import BadInput

Floats = NDArray[np.float64]
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""Of a fit to the data against small weights (scikit-learn's C): those that `choose_strength` tries."""
STEPS = 1000
HELD_OUT = 5
"""One item of so many of each class is held out to choose a strength by."""


@dataclass(frozen=True)
class LinearProbe:
    weights_CD: Floats
    bias_C: Floats

    def scores(self, features_ND: ArrayLike) -> Floats:
        """Logits `[N, C]`."""
        return np.asarray(features_ND, np.float64) @ self.weights_CD.T + self.bias_C


def fit(features_ND: ArrayLike, labels_N: ArrayLike, classes: int, strength: float = 1.0) -> LinearProbe:
    """The least of `strength` times the sum of cross entropies plus half the squared weights (the bias is free), by
    L-BFGS from zero. Raises `BadInput` for shapes that do not fit and labels that are no class."""
    from scipy.optimize import minimize

    x_ND, labels = np.asarray(features_ND, np.float64), np.asarray(labels_N)
    if x_ND.ndim != 2 or labels.shape != x_ND.shape[:1] or not labels.size:
        raise BadInput(f"features of shape {x_ND.shape} and labels of shape {labels.shape}; expected [N, D] and [N]")
    if labels.min() < 0 or labels.max() >= classes:
        raise BadInput(f"labels {labels.min()} to {labels.max()} for {classes} classes")
    rows, size = np.arange(len(labels)), classes * x_ND.shape[1]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights_CD, bias_C = flat[:size].reshape(classes, -1), flat[size:]
        logits_NC = x_ND @ weights_CD.T + bias_C
        logits_NC -= logits_NC.max(axis=1, keepdims=True)
        sums_N = np.exp(logits_NC).sum(axis=1)
        entropy = (np.log(sums_N) - logits_NC[rows, labels]).sum()
        error_NC = np.exp(logits_NC) / sums_N[:, None]
        error_NC[rows, labels] -= 1
        # Divided by the strength: the same least, and steps of a size that L-BFGS likes.
        slope = np.concatenate([(error_NC.T @ x_ND + weights_CD / strength).ravel(), error_NC.sum(axis=0)])
        return float(entropy + (weights_CD**2).sum() / (2 * strength)) / len(rows), slope / len(rows)

    options = {"maxiter": STEPS, "gtol": 1e-7, "ftol": 1e-13}
    found = minimize(loss, np.zeros(size + classes), jac=True, method="L-BFGS-B", options=options).x
    return LinearProbe(found[:size].reshape(classes, -1), found[size:])


def choose_strength(
    features_ND: ArrayLike, labels_N: ArrayLike, classes: int, strengths: Sequence[float] = STRENGTHS
) -> float:
    """The strength whose fit to four fifths is right most often on the last fifth of each class; of equals the least.

    A class of fewer than `HELD_OUT` items stays whole; where all do, the middle strength is taken.
    """
    x_ND, labels = np.asarray(features_ND, np.float64), np.asarray(labels_N)
    held = np.zeros(len(labels), bool)
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        held[own[HELD_OUT - 1 :: HELD_OUT]] = True
    if not held.any():
        return sorted(strengths)[len(strengths) // 2]
    best, most = sorted(strengths)[0], -1.0
    for strength in sorted(strengths):
        probe = fit(x_ND[~held], labels[~held], classes, strength)
        right = float((probe.scores(x_ND[held]).argmax(axis=1) == labels[held]).mean())
        if right > most:
            best, most = strength, right
    return best


def class_means(features_ND: ArrayLike, labels_N: ArrayLike, classes: int) -> Floats:
    """`[C, D]`: the mean of each class's features, of unit length (Snell et al. 2017, for the cosine).

    Raises `BadInput` for a class without any.
    """
    x_ND, labels = np.asarray(features_ND, np.float64), np.asarray(labels_N)
    if empty := [label for label in range(classes) if not (labels == label).any()]:
        raise BadInput(f"{len(empty)} of {classes} classes have no item, such as class {empty[0]}")
    means_CD = np.stack([x_ND[labels == label].mean(axis=0) for label in range(classes)])
    return means_CD / np.linalg.norm(means_CD, axis=1, keepdims=True)

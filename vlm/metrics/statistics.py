"""How far a benchmark's mean may be off (Miller 2024, "Adding Error Bars to Evals")."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from vlm.errors import BadInput


def standard_error(scores: ArrayLike) -> float:
    """Standard error of the mean of independent scores: their standard deviation (n - 1) over the root of n."""
    values = _scores(scores)
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def clustered_standard_error(scores: ArrayLike, clusters: Sequence[Hashable]) -> float:
    """Standard error where questions of one cluster (an image, a document) are not independent, as lmms-eval has it.

    The variance of the mean is that of `standard_error` plus, over all pairs of different questions in a cluster, the
    product of their distances to the mean, divided by n squared (section 2.2 of the paper). A sum of such products can
    be negative; a variance that comes out below zero is taken as zero.
    """
    values = _scores(scores)
    if len(clusters) != len(values):
        raise BadInput(f"{len(clusters)} clusters for {len(values)} scores; expected one each")
    distance = values - values.mean()
    sums: dict[Hashable, float] = {}
    for cluster, d in zip(clusters, distance.tolist(), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + d
    between = sum(s * s for s in sums.values()) - float((distance**2).sum())
    return float(np.sqrt(max(0.0, standard_error(values) ** 2 + between / len(values) ** 2)))


def _scores(scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise BadInput(f"scores have shape {values.shape}; expected a list of two or more")
    return values

"""What is done with vectors of the shared space, whoever made them: shortened, composed, grouped.

N vectors, S shared width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlm.errors import BadInput

Vectors = NDArray[np.float32]
"""float32 `[N, S]`."""

BLOCK = 1024
"""Rows compared with all others at a time."""


def shortened(vectors_NS: Vectors, width: int | None) -> Vectors:
    """The first `width` numbers of each vector, of unit length again (Matryoshka, arXiv:2205.13147); all for `None`.

    Raises `BadInput` for a width there is not.
    """
    if width is None or width == vectors_NS.shape[-1]:
        return vectors_NS
    if not 1 <= width <= vectors_NS.shape[-1]:
        raise BadInput(f"width {width}: expected 1 to {vectors_NS.shape[-1]}, the width of the vectors")
    return _unit(vectors_NS[..., :width])


def composed(vectors: Sequence[Vectors], weights: Sequence[float]) -> Vectors:
    """One query `[S]` of several: their weighted sum, of unit length.

    Raises `BadInput` where the weights do not fit, are not finite, or leave nothing (opposite vectors).
    """
    if len(vectors) != len(weights) or not np.isfinite(weights).all():
        raise BadInput(f"expected a finite weight for each of {len(vectors)} queries, got {list(weights)}")
    total_S = sum(weight * np.asarray(vector, np.float64) for vector, weight in zip(vectors, weights, strict=True))
    if np.linalg.norm(total_S) < 1e-6:
        raise BadInput(f"the queries cancel out with weights {list(weights)}; expected others")
    return _unit(np.asarray(total_S)).astype(np.float32)


def near_groups(vectors_NS: Vectors, threshold: float) -> list[list[int]]:
    """Groups of rows that are near each other: connected through similarities of at least `threshold`.

    Exact: every pair is compared, a block of rows at a time. Groups of two and more, largest first, rows in order.
    """
    label_N = np.arange(len(vectors_NS))
    for start in range(0, len(vectors_NS), BLOCK):
        near_BN = vectors_NS[start : start + BLOCK] @ vectors_NS[start:].T >= threshold
        for row, near_N in enumerate(near_BN, start):
            joined = np.unique(label_N[np.append(np.flatnonzero(near_N) + start, row)])
            if len(joined) > 1:  # at most N - 1 times, since each time there are fewer groups
                label_N[np.isin(label_N, joined)] = joined[0]
    _, place_N, sizes = np.unique(label_N, return_inverse=True, return_counts=True)
    groups = np.split(np.argsort(place_N, kind="stable"), np.cumsum(sizes)[:-1])
    return sorted((group.tolist() for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


def _unit(rows: Vectors) -> Vectors:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(length, 1e-12)

"""Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): orders joined by rank, whatever their scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from vlm.index.base import Hit

K = 60
"""The paper's constant: how little the first places differ."""


def fused(orders: Sequence[Sequence[Hit]]) -> list[Hit]:
    """All hits by the sum of 1 / (60 + rank), rank from 1, over the orders they stand in; ties as they came."""
    scores: dict[str, float] = defaultdict(float)
    hits: dict[str, Hit] = {}
    for order in orders:
        for rank, hit in enumerate(order, 1):
            scores[hit.id] += 1 / (K + rank)
            hits.setdefault(hit.id, hit)
    best = sorted(scores, key=lambda id: -scores[id])
    return [Hit(id, scores[id], hits[id].metadata) for id in best]

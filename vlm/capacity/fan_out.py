"""A query that asks every shard waits for the slowest: the tail at scale (Dean and Barroso, CACM 2013).

Q queries, S shards; milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""So many latencies of one shard."""
BLOCK = 2_000_000
"""Latencies drawn at once: bounds the memory."""


@dataclass(frozen=True)
class Tail:
    shards: int
    p50: float
    p99: float
    asked_again: float
    """Share of a query's requests that were sent twice."""


def shard_latency(fixed: float, scan: float, sigma: float, pause_share: float, pause: float) -> Draw:
    """What is fixed, a scan whose time scatters log-normally, and now and then a pause (exponential)."""

    def draw(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        pauses = np.where(rng.random(count) < pause_share, rng.exponential(pause, count), 0.0)
        return fixed + scan * np.exp(sigma * rng.standard_normal(count)) + pauses

    return draw


def slowest(
    draw: Draw, shards: int, queries: int, rng: np.random.Generator, hedge_after: float | None = None
) -> tuple[NDArray[np.float64], float]:
    """Latencies `[Q]` of queries that ask all shards, and the share of requests sent twice.

    A shard that has not answered after `hedge_after` is asked again on a replica, and the first answer counts. For
    exponential latencies of mean 1 the mean is the S-th harmonic number.
    """
    latencies, again, second = [], 0, rng.spawn(1)[0]  # with or without asking twice the first draws are the same
    for start in range(0, queries, max(1, BLOCK // shards)):
        count = min(max(1, BLOCK // shards), queries - start)
        each_QS = draw(rng, count * shards)
        if hedge_after is not None:
            late = np.flatnonzero(each_QS > hedge_after)
            each_QS[late] = np.minimum(each_QS[late], hedge_after + draw(second, len(late)))
            again += len(late)
        latencies.append(each_QS.reshape(count, shards).max(axis=1))
    return np.concatenate(latencies), again / (queries * shards)


def tail(draw: Draw, shards: int, queries: int, rng: np.random.Generator, hedge_quantile: float | None = None) -> Tail:
    """Of `queries` such queries; what is late is what is slower than `hedge_quantile` of one shard's answers."""
    own = draw(np.random.default_rng(0), 100_000)
    hedge = None if hedge_quantile is None else float(np.quantile(own, hedge_quantile))
    latency_Q, again = slowest(draw, shards, queries, rng, hedge)
    return Tail(shards, float(np.quantile(latency_Q, 0.5)), float(np.quantile(latency_Q, 0.99)), again)

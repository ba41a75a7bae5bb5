"""From samples to figures with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from vlm.evaluation.results import Figure, Sample
from vlm.metrics.statistics import Interval, Statistic, bootstrap, interval_of_mean

DIGITS = 6
"""Decimals of a published figure; more would be noise of the last bits."""


def figure(
    interval: Interval, n: int, *, scale: float = 1.0, sample_score: str | None = None, note: str = ""
) -> Figure:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(scale * value, DIGITS)

    return Figure(
        value=round(scale * interval.value, DIGITS),
        low=rounded(interval.low),
        high=rounded(interval.high),
        error=rounded(interval.error),
        n=n,
        sample_score=sample_score,
        scale=scale,
        note=note,
    )


def mean_figure(samples: Sequence[Sample], score: str, *, scale: float = 1.0, note: str = "") -> Figure:
    """The mean of a score over the samples that have it, with a clustered interval."""
    values, clusters = [], []
    for sample in samples:
        value = sample.scores.get(score)
        if value is not None:
            values.append(value)
            clusters.append(sample.cluster)
    return figure(interval_of_mean(values, clusters), len(values), scale=scale, sample_score=score, note=note)


def resampled_figure(
    rows_NS: ArrayLike, clusters: Sequence[str], statistic: Statistic, *, scale: float = 1.0, note: str = ""
) -> Figure:
    """A figure that is no mean of samples: `statistic` of rows, with a cluster-bootstrap interval."""
    rows = np.asarray(rows_NS, np.float64)
    return figure(bootstrap(rows, clusters, statistic), len(rows), scale=scale, note=note)


def around(value: float, interval: Interval) -> Interval:
    """The interval moved to `value`."""
    shift = value - interval.value
    low, high = (None if x is None else x + shift for x in (interval.low, interval.high))
    return Interval(value, low, high, interval.error)


def by_category(samples: Sequence[Sample], scores: Mapping[str, float]) -> dict[str, dict[str, Figure]]:
    """Category -> metric -> figure, for samples that have a category; `scores` maps a sample's score to its scale."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.category is not None:
            found.setdefault(sample.category, []).append(sample)
    return {
        name: {
            score: mean_figure(members, score, scale=scale)
            for score, scale in scores.items()
            if any(s.scores.get(score) is not None for s in members)
        }
        for name, members in sorted(found.items())
    }


def clusters_of(samples: Iterable[Sample]) -> list[str]:
    return [sample.cluster for sample in samples]

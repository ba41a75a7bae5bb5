"""From samples to figures with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from vlm.evaluation.results import Figure, Sample
from vlm.metrics.statistics import Interval, Statistic, bootstrap, interval_of_mean

DIGITS = 6
"""Decimals of a published figure; more would be noise of the last bits."""

Bounds = tuple[float, float]
FRACTION: Bounds = (0.0, 1.0)


def figure(
    interval: Interval,
    n: int,
    *,
    scale: float = 1.0,
    bounds: Bounds | None = FRACTION,
    sample_score: str | None = None,
    joint: bool = False,
    note: str = "",
) -> Figure:
    """The interval on another scale. `bounds`, before scaling, are the least and the most the metric can be (None: it
    has none): the interval ends there, so that a handful of samples does not give a share below 0.
    """

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(scale * value, DIGITS)

    inside = interval if bounds is None else interval.within(bounds)
    return Figure(
        value=round(scale * inside.value, DIGITS),
        low=rounded(inside.low),
        high=rounded(inside.high),
        error=rounded(inside.error),
        n=n,
        sample_score=sample_score,
        scale=scale,
        bounds=None if bounds is None else (scale * bounds[0], scale * bounds[1]),
        joint=joint,
        note=note,
    )


def mean_figure(
    samples: Sequence[Sample],
    score: str,
    *,
    scale: float = 1.0,
    bounds: Bounds | None = FRACTION,
    joint: bool = False,
) -> Figure:
    """The mean of a score over the samples that have it, with a clustered interval; see `figure` and `Figure.joint`."""
    values, clusters = [], []
    for sample in samples:
        value = sample.scores.get(score)
        if value is not None:
            values.append(value)
            clusters.append(sample.cluster)
    found = interval_of_mean(values, clusters)
    return figure(found, len(values), scale=scale, bounds=bounds, sample_score=score, joint=joint)


def resampled_figure(
    rows_NS: ArrayLike,
    clusters: Sequence[str],
    statistic: Statistic,
    *,
    scale: float = 1.0,
    bounds: Bounds | None = FRACTION,
) -> Figure:
    """A figure that is no mean of samples: `statistic` of rows, with a cluster-bootstrap interval."""
    rows = np.asarray(rows_NS, np.float64)
    return figure(bootstrap(rows, clusters, statistic), len(rows), scale=scale, bounds=bounds)


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

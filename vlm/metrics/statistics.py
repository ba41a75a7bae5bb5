"""How far a benchmark's figures may be off (Miller 2024, "Adding Error Bars to Evals").

Pure functions on arrays. Samples of one cluster (an image, a document) are not independent: where clusters are given
they are what varies, whole. No result depends on the order of the samples, and none is NaN: what cannot be told from
the samples (one of them, one cluster, nothing that varies) is None.

Letters: N samples, S numbers a sample, C clusters, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from vlm.errors import BadInput

Clusters = Sequence[Hashable]
Statistic = Callable[[np.ndarray], float]
"""Sample rows [n, S] -> a figure. The rows come in no particular order."""

CELLS = 2**22
"""Numbers drawn at once: what bounds the memory of resampling."""


@dataclass(frozen=True)
class Interval:
    """A value, its 95 % interval and standard error; None where the samples do not tell them."""

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None

    def scaled(self, scale: float) -> Interval:
        """The same on another scale (`scale` > 0), such as 100 for percent."""
        low, high, error = (None if x is None else x * scale for x in (self.low, self.high, self.error))
        return Interval(self.value * scale, low, high, error)

    def within(self, bounds: tuple[float, float]) -> Interval:
        """The same with its ends inside the least and the most the figure can be.

        Student's t knows no bounds, and of a handful of samples goes beyond them. Raises `BadInput` where the value
        itself does.
        """
        least, most = bounds
        if not least - 1e-9 <= self.value <= most + 1e-9:
            raise BadInput(f"a figure is {self.value}; expected {least:g} to {most:g}")
        low, high = (None if x is None else min(most, max(least, x)) for x in (self.low, self.high))
        return Interval(self.value, low, high, self.error)


def interval_of_mean(scores: ArrayLike, clusters: Clusters | None = None) -> Interval:
    """The mean of `scores` [N] with its clustered standard error and a 95 % interval, without resampling.

    The variance of the mean is, over all pairs of samples in a cluster, the product of their distances to the mean,
    divided by N squared (section 2.2 of the paper), with the factor C / (C - 1) so that few clusters are not
    overconfident; without clusters the error is `scipy.stats.sem`. (lmms-eval has N / (N - 1) on the samples' own
    products and no factor on the others.) The interval is Student's t with C - 1 degrees.

    Scores that are all 0 or 1 have Wilson's interval (1927) instead: it stays within [0, 1] and has a width where all
    are right, both of which the t interval gets wrong just where good models are. Clusters enter it as the effective
    number of samples p(1 - p) / error^2 (Dean and Pagano 2015), never more than N; where all scores are equal, C. (That
    is no whole number, so it is written out here: `scipy.stats.binomtest` counts, and has z where this has t.)

    Raises `BadInput` where there are no scores, one is not finite, or clusters are not one a score.
    """
    rows_NS, starts_C = sorted_rows(scores, clusters)
    n, count = len(rows_NS), len(starts_C)
    values = rows_NS[:, 0]
    mean, error = mean_and_error(values, starts_C)
    if count < 2:
        return Interval(mean)
    t = t_quantile(count - 1)
    if set(np.unique(values)) <= {0.0, 1.0}:
        effective = min(float(n), mean * (1 - mean) / error**2) if error else float(n if 0 < mean < 1 else count)
        middle = (mean + t * t / (2 * effective)) / (1 + t * t / effective)
        half = t / (1 + t * t / effective) * sqrt(mean * (1 - mean) / effective + (t / (2 * effective)) ** 2)
        return Interval(mean, max(0.0, min(mean, middle - half)), min(1.0, max(mean, middle + half)), error)
    return Interval(mean, mean - t * error, mean + t * error, error) if error else Interval(mean)


def bootstrap(
    rows_NS: ArrayLike,
    clusters: Clusters | None = None,
    statistic: Statistic | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """A figure with its 95 % percentile interval over resamples of whole clusters, and their standard deviation.

    For figures that are no mean of samples, `rows_NS` holds what the figure is made from (BLEU's counts and lengths,
    say), and `statistic` makes it; by default it is the mean of the first column, whose resamples need only the sums
    and sizes of clusters. [N] is taken as [N, 1]. Resamples where the statistic is not finite (an F1 without a single
    positive) are left out. The percentile interval (Efron and Tibshirani 1993, chapter 13) is too narrow below some
    twenty clusters; there `interval_of_mean` is better where the figure is a mean.

    `scipy.stats.bootstrap` resamples single observations, not clusters of rows, which is why this is ours. The same
    seed gives the same interval, whatever the order of the samples. Raises `BadInput` as `interval_of_mean`, or where
    the statistic of all samples is not finite.
    """
    rows_NS, starts_C = sorted_rows(rows_NS, clusters)
    sizes_C = np.diff(np.append(starts_C, len(rows_NS)))
    value = float(rows_NS[:, 0].mean() if statistic is None else statistic(rows_NS))
    if not np.isfinite(value):
        raise BadInput(f"the statistic of all {len(rows_NS)} samples is {value}; expected a finite number")
    count = len(starts_C)
    if count < 2 or resamples < 2:
        return Interval(value)
    random = np.random.default_rng(seed)
    draws: list[float] = []
    sums_C = np.add.reduceat(rows_NS[:, 0], starts_C)
    block = max(1, CELLS // count)
    while len(draws) < resamples:
        chosen_RC = random.integers(0, count, size=(min(block, resamples - len(draws)), count))
        if statistic is None:
            draws += (sums_C[chosen_RC].sum(axis=1) / sizes_C[chosen_RC].sum(axis=1)).tolist()
        else:
            draws += [float(statistic(rows_NS[_members(starts_C, sizes_C, row)])) for row in chosen_RC]
    finite = np.array(draws)[np.isfinite(draws)]
    if len(finite) < 2 or np.ptp(finite) <= 1e-12 * abs(value):
        return Interval(value)
    low, high = np.quantile(finite, (0.025, 0.975))
    return Interval(value, float(low), float(high), float(finite.std(ddof=1)))


def sorted_rows(rows: ArrayLike, clusters: Clusters | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N, S] in an order of their own, clusters together, and where each cluster starts [C]."""
    rows_NS = np.asarray(rows, np.float64)
    if rows_NS.ndim == 1:
        rows_NS = rows_NS[:, None]
    if rows_NS.ndim != 2 or not rows_NS.size:
        raise BadInput(f"scores have shape {rows_NS.shape}; expected [N] or [N, S] with one sample or more")
    if not np.isfinite(rows_NS).all():
        where = int(np.flatnonzero(~np.isfinite(rows_NS).all(axis=1))[0])
        raise BadInput(f"score {where} is {rows_NS[where].tolist()}; expected finite numbers")
    n = len(rows_NS)
    if clusters is None:
        return rows_NS[np.lexsort(rows_NS.T[::-1])], np.arange(n)
    if len(clusters) != n:
        raise BadInput(f"{len(clusters)} clusters for {n} scores; expected one each")
    numbers = {cluster: i for i, cluster in enumerate(sorted(set(clusters), key=repr))}
    labels_N = np.array([numbers[cluster] for cluster in clusters])
    order_N = np.lexsort([*rows_NS.T[::-1], labels_N])
    return rows_NS[order_N], np.searchsorted(labels_N[order_N], np.arange(len(numbers)))


def mean_and_error(values_N: np.ndarray, starts_C: np.ndarray) -> tuple[float, float | None]:
    """The mean and its clustered error; None with one cluster or where clusters do not differ beyond rounding."""
    n, count, mean = len(values_N), len(starts_C), float(values_N.mean())
    sums_C = np.add.reduceat(values_N - mean, starts_C)
    if count < 2 or np.abs(sums_C).max() <= 1e-12 * np.abs(values_N).sum():
        return mean, None
    return mean, float(np.sqrt((sums_C**2).sum() * count / (count - 1)) / n)


def _members(starts_C: np.ndarray, sizes_C: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The row numbers of the chosen clusters, one after the other."""
    sizes = sizes_C[chosen]
    first = np.cumsum(sizes) - sizes
    return np.repeat(starts_C[chosen] - first, sizes) + np.arange(sizes.sum())


def t_quantile(degrees: int) -> float:
    """Student's t at 97.5 %."""
    from scipy.stats import t  # takes most of a second

    return float(t.ppf(0.975, degrees))

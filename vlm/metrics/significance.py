"""Whether two systems differ, by their scores of the same samples (Miller 2024, "Adding Error Bars to Evals", 4.2).

Pure functions on arrays. As in `statistics`, samples of one cluster are not independent, and no result depends on the
order of the samples or is NaN.

Letters: N samples, S numbers a sample, C clusters, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from vlm.errors import BadInput
from vlm.metrics.statistics import CELLS, Clusters, Interval, mean_and_error, sorted_rows, t_quantile

ENUMERATED = 14
"""Up to this many clusters that differ, all 2^C sign flips are tried instead of a random choice of them."""


@dataclass(frozen=True)
class PairedDifference:
    """What the same samples say of two systems: the mean of B minus A."""

    difference: Interval
    p: float
    """Two-sided, of no difference (`sign_flip_test`)."""
    detectable: float | None
    """The smallest true difference that is likely found, and that `sign_flip_test` can find at all; None where there is
    none."""
    better: int
    """Samples where B scores higher."""
    worse: int
    n: int
    clusters: int


def paired_difference(a: ArrayLike, b: ArrayLike, clusters: Clusters | None = None) -> PairedDifference:
    """Compare two systems by their scores of the same samples, `a` and `b` [N]: the mean of b - a (section 4.2).

    The interval is Student's t on the clustered error of the differences; there is none where they are all the same.
    `detectable` is `smallest_detectable_difference`, or six clusters' usual difference where that is more: fewer than
    six that differ cannot make p less than 0.05, which an error from one or two of them does not know.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise BadInput(f"scores of shape {first.shape} and {second.shape}; expected the same samples in both")
    differences = second - first
    rows_NS, starts_C = sorted_rows(differences, clusters)
    mean, error = mean_and_error(rows_NS[:, 0], starts_C)
    half = t_quantile(len(starts_C) - 1) * error if error else 0.0
    detectable = smallest_detectable_difference(differences, clusters)
    if detectable is not None:
        sizes_C = np.abs(np.add.reduceat(rows_NS[:, 0], starts_C))
        detectable = max(detectable, 6 * float(np.median(sizes_C[sizes_C > 0])) / len(rows_NS))
    return PairedDifference(
        difference=Interval(mean, mean - half, mean + half, error) if error else Interval(mean),
        p=sign_flip_test(differences, clusters),
        detectable=detectable,
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        n=len(differences),
        clusters=len(starts_C),
    )


def sign_flip_test(
    differences: ArrayLike, clusters: Clusters | None = None, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p of no difference between paired scores: how often as large a sum comes of flipping signs at random.

    Were the two systems alike, each cluster's sum of differences would as well have the other sign (Fisher 1935,
    section 21). Exact where the sums that are not zero are all of one size (then it is `mcnemar`) or few; else over
    `resamples` random flips, the observed one counted with them, so that p is never zero (Phipson and Smyth 2010).
    `scipy.stats.permutation_test` does the same with permuted indices: 3.6 s and 360 MB where this takes 0.06 s and
    no more than `CELLS` numbers, at 5,000 clusters.
    """
    rows_NS, starts_C = sorted_rows(differences, clusters)
    sums_C = np.add.reduceat(rows_NS[:, 0], starts_C)
    tiny = 1e-12 * float(np.abs(rows_NS).sum())  # what is left of 0.1 + 0.2 - 0.3
    sums_C = sums_C[np.abs(sums_C) > tiny]
    if not len(sums_C):
        return 1.0
    sizes_C, observed = np.sort(np.abs(sums_C)), abs(float(sums_C.sum())) - tiny
    count = len(sizes_C)
    if sizes_C[-1] - sizes_C[0] <= tiny:
        return mcnemar(int((sums_C > 0).sum()), int((sums_C < 0).sum()))
    if count <= ENUMERATED:
        flips = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float((np.abs((1 - 2 * flips) @ sizes_C) >= observed).mean())
    random = np.random.default_rng(seed)
    done = extreme = 0
    while done < resamples:
        block = min(max(1, CELLS // count), resamples - done)
        bits = np.unpackbits(np.frombuffer(random.bytes(block * (count // 8 + 1)), np.uint8).reshape(block, -1), axis=1)
        sums_R = 2 * (bits[:, :count] @ sizes_C) - sizes_C.sum()
        extreme += int((np.abs(sums_R) >= observed).sum())
        done += block
    return (1 + extreme) / (1 + resamples)


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p of McNemar's test (1947): `better` and `worse` samples changed, a fair coin each if alike."""
    from scipy.stats import binomtest  # takes most of a second

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def smallest_detectable_difference(
    differences: ArrayLike, clusters: Clusters | None = None, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The true difference that a two-sided test at `alpha` finds with probability `power` on samples like these.

    (z_{1 - alpha/2} + z_power) times the clustered error of the paired differences: Miller 2024, section 5, the
    formula for n solved for the difference. None where the differences do not vary.
    """
    if not (0 < alpha < 1 and 0 < power < 1):
        raise BadInput(f"power {power} and alpha {alpha}; expected both between 0 and 1")
    rows_NS, starts_C = sorted_rows(differences, clusters)
    _, error = mean_and_error(rows_NS[:, 0], starts_C)
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * error if error else None


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for there being several of them (Holm 1979; not in scipy), in the order given."""
    adjusted, highest, count = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, i in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted

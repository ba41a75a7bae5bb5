"""Intervals that hold the truth as often as they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import sem

from vlm.errors import BadInput
from vlm.metrics.statistics import Interval, bootstrap, interval_of_mean

TRIALS = 400


def pictures(random: np.random.Generator, count: int, each: int, shared: float) -> tuple[np.ndarray, list[str]]:
    """Scores around 0.5 of `each` questions a picture, of whose variance the fraction `shared` is the picture's."""
    picture = random.normal(size=(count, 1)) * np.sqrt(shared)
    own = random.normal(size=(count, each)) * np.sqrt(1 - shared)
    return 0.5 + (picture + own).ravel(), [f"{i}.jpg" for i in range(count) for _ in range(each)]


def coverage(interval: Callable[[np.random.Generator], Interval], truth: float) -> float:
    random = np.random.default_rng(7)
    found = [interval(random) for _ in range(TRIALS)]
    return float(np.mean([i.low <= truth <= i.high for i in found if i.low is not None and i.high is not None]))


@pytest.mark.parametrize("method", [bootstrap, interval_of_mean])
def test_intervals_hold_the_truth_at_the_stated_rate(method: Callable[..., Interval]) -> None:
    assert 0.91 <= coverage(lambda r: method(*pictures(r, 40, 3, 0.6)), 0.5) <= 0.98
    ignored = coverage(lambda r: method(pictures(r, 40, 3, 0.6)[0]), 0.5)
    assert ignored < 0.88, "clusters ignored: too sure"


def test_few_clusters_are_not_overconfident() -> None:
    assert 0.92 <= coverage(lambda r: interval_of_mean(*pictures(r, 4, 5, 0.8)), 0.5) <= 0.98


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.98])
def test_proportions_near_one_are_held_too(truth: float) -> None:
    assert 0.92 <= coverage(lambda r: interval_of_mean(r.random(60) < truth), truth) <= 1


def test_the_interval_of_a_proportion_is_wilsons() -> None:
    right = [1.0] * 81 + [0.0] * 182
    found = interval_of_mean(right)
    # Newcombe 1998, table I: 0.2553 to 0.3662 with z; t has 262 degrees here.
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-4)
    assert found.error == pytest.approx(sem(right))
    perfect = interval_of_mean([1.0] * 100)
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(0.963, abs=2e-3)
    same_pictures = interval_of_mean([1.0] * 100, [i // 10 for i in range(100)])
    assert same_pictures.low is not None
    assert same_pictures.low < 0.75, "ten pictures are not a hundred samples"


def test_answers_that_agree_within_a_cluster_widen_the_error() -> None:
    scores, clusters = [0.2, 0.2, 0.2, 0.9, 0.9, 0.9, 0.5, 0.5, 0.5], "aaabbbccc"
    naive, clustered = interval_of_mean(scores), interval_of_mean(scores, clusters)
    assert naive.error == pytest.approx(sem(scores))
    assert clustered.error == pytest.approx(sem([0.2, 0.9, 0.5]))
    assert bootstrap(scores, clusters).error > bootstrap(scores).error * 1.3  # type: ignore[operator]
    many, names = pictures(np.random.default_rng(0), 500, 4, 0.5)
    assert interval_of_mean(many, names).error == pytest.approx(sem(many.reshape(500, 4).mean(1)))  # of equal clusters


def test_the_bootstrap_of_a_statistic_is_that_of_the_mean() -> None:
    scores, clusters = pictures(np.random.default_rng(0), 30, 2, 0.5)
    general = bootstrap(scores, clusters, lambda rows: rows[:, 0].mean())
    fast = bootstrap(scores, clusters)
    assert (general.value, general.low, general.high) == pytest.approx((fast.value, fast.low, fast.high))
    assert fast.error == pytest.approx(interval_of_mean(scores, clusters).error, rel=0.1)


def test_the_bootstrap_of_a_ratio() -> None:
    """Precision: a figure that is no mean of samples; clusters of unequal size."""

    def precision(rows: np.ndarray) -> float:
        return float(rows[:, 0].sum() / rows[:, 1].sum()) if rows[:, 1].any() else float("nan")

    def once(random: np.random.Generator) -> Interval:
        said = random.random(150) < 0.4
        rows = np.stack([said & (random.random(150) < 0.7), said], axis=1)
        return bootstrap(rows, [f"{i * i // 120}" for i in range(150)], precision, resamples=200)

    assert 0.90 <= coverage(once, 0.7) <= 0.98
    rare = np.zeros((20, 2))
    rare[0] = rare[1, 1] = 1
    found = bootstrap(rare, None, precision)
    assert found.value == 0.5
    assert found.low is not None
    assert np.isfinite([found.low, found.high, found.error]).all()


def test_nothing_depends_on_the_order_of_the_samples() -> None:
    random = np.random.default_rng(5)
    a, clusters = pictures(random, 25, 3, 0.4)
    order = random.permutation(len(a))
    mixed = [clusters[i] for i in order]
    assert bootstrap(a, clusters) == bootstrap(a[order], mixed)
    assert bootstrap(a) == bootstrap(a[order])
    assert bootstrap(a, clusters, np.std) == bootstrap(a[order], mixed, np.std)
    assert bootstrap(a, clusters, seed=1) != bootstrap(a, clusters)
    assert interval_of_mean(a, clusters) == interval_of_mean(a[order], mixed)


def test_what_cannot_be_told_is_none() -> None:
    assert interval_of_mean([0.7]) == bootstrap([0.7]) == Interval(0.7)
    assert interval_of_mean([0.1, 0.7, 0.7], "aaa") == bootstrap([0.1, 0.7, 0.7], "aaa") == Interval(0.5)
    assert interval_of_mean([0.3] * 5) == bootstrap([0.3] * 5) == Interval(pytest.approx(0.3))
    assert Interval(0.5, 0.4).scaled(100) == Interval(50, 40)


@pytest.mark.parametrize("method", [bootstrap, interval_of_mean])
def test_bad_scores_are_one_line(method: Callable[..., object]) -> None:
    with pytest.raises(BadInput, match="one sample or more"):
        method([])
    with pytest.raises(BadInput, match=r"score 1 is \[nan\]"):
        method([0.1, float("nan")])
    with pytest.raises(BadInput, match="1 clusters for 2"):
        method([0.1, 0.2], ["a"])


def test_a_statistic_that_is_no_number_is_one_line() -> None:
    with pytest.raises(BadInput, match="the statistic of all 2 samples is nan"):
        bootstrap([1, 2], None, lambda rows: float("nan"))


def test_an_interval_stays_within_what_the_figure_can_be() -> None:
    found = interval_of_mean([0.1, 0.2, 4.0])
    assert found.low is not None
    assert found.low < 0
    inside = found.within((0, 10))
    assert (inside.value, inside.low, inside.high, inside.error) == (found.value, 0, found.high, found.error)
    assert Interval(0.5, -0.1, 1.2, 0.3).within((0, 1)) == Interval(0.5, 0, 1, 0.3)
    assert Interval(0.5).within((0, 1)) == Interval(0.5)
    with pytest.raises(BadInput, match=r"a figure is 1\.5; expected 0 to 1"):
        Interval(1.5).within((0, 1))


def test_students_quantiles() -> None:
    """At the seams of table and expansion, seen through an interval: half its width over the error is t."""
    for count, expected in ((2, 12.7062), (10, 2.26216), (11, 2.22814), (31, 2.04227), (101, 1.98397)):
        found = interval_of_mean(np.arange(count) * 0.5)
        assert (found.high - found.value) / found.error == pytest.approx(expected, abs=1e-4)  # type: ignore[operator]

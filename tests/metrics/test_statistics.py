"""Intervals that hold the truth as often as they say, tests that err as often as they say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.statistics import (
    Interval,
    bootstrap,
    clustered_standard_error,
    holm,
    interval_of_mean,
    mcnemar,
    paired_difference,
    sign_flip_test,
    smallest_detectable_difference,
    standard_error,
)

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
    assert found.error == pytest.approx(standard_error(right))
    perfect = interval_of_mean([1.0] * 100)
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(0.963, abs=2e-3)
    same_pictures = interval_of_mean([1.0] * 100, [i // 10 for i in range(100)])
    assert same_pictures.low is not None
    assert same_pictures.low < 0.75, "ten pictures are not a hundred samples"


def test_answers_that_agree_within_a_cluster_widen_the_error() -> None:
    scores, clusters = [0.2, 0.2, 0.2, 0.9, 0.9, 0.9, 0.5, 0.5, 0.5], "aaabbbccc"
    naive, clustered = interval_of_mean(scores), interval_of_mean(scores, clusters)
    assert naive.error == pytest.approx(standard_error(scores))
    assert clustered.error == pytest.approx(standard_error([0.2, 0.9, 0.5]))
    assert bootstrap(scores, clusters).error > bootstrap(scores).error * 1.3  # type: ignore[operator]
    many, names = pictures(np.random.default_rng(0), 500, 4, 0.5)
    assert interval_of_mean(many, names).error == pytest.approx(clustered_standard_error(many, names), rel=2e-3)


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
    b = a + random.normal(0.1, 0.3, len(a))
    order = random.permutation(len(a))
    mixed = [clusters[i] for i in order]
    assert bootstrap(a, clusters) == bootstrap(a[order], mixed)
    assert bootstrap(a) == bootstrap(a[order])
    assert bootstrap(a, clusters, np.std) == bootstrap(a[order], mixed, np.std)
    assert bootstrap(a, clusters, seed=1) != bootstrap(a, clusters)
    assert interval_of_mean(a, clusters) == interval_of_mean(a[order], mixed)
    assert paired_difference(a, b, clusters) == paired_difference(a[order], b[order], mixed)


def test_what_cannot_be_told_is_none() -> None:
    assert interval_of_mean([0.7]) == bootstrap([0.7]) == Interval(0.7)
    assert interval_of_mean([0.1, 0.7, 0.7], "aaa") == bootstrap([0.1, 0.7, 0.7], "aaa") == Interval(0.5)
    assert interval_of_mean([0.3] * 5) == bootstrap([0.3] * 5) == Interval(pytest.approx(0.3))
    alone = paired_difference([0.1], [0.6])
    assert (alone.difference, alone.p, alone.detectable) == (Interval(0.5), 1.0, None)
    same = paired_difference([0, 1, 1], [0, 1, 1])
    assert (same.difference, same.p, same.detectable, same.better) == (Interval(0), 1.0, None, 0)
    assert paired_difference([0, 1, 0, 1], [1, 0, 1, 0], "aabb").difference == Interval(0)
    assert Interval(0.5, 0.4).scaled(100) == Interval(50, 40)


@pytest.mark.parametrize("method", [bootstrap, interval_of_mean, sign_flip_test, smallest_detectable_difference])
def test_bad_scores_are_one_line(method: Callable[..., object]) -> None:
    with pytest.raises(BadInput, match="one sample or more"):
        method([])
    with pytest.raises(BadInput, match=r"score 1 is \[nan\]"):
        method([0.1, float("nan")])
    with pytest.raises(BadInput, match="1 clusters for 2"):
        method([0.1, 0.2], ["a"])


def test_scores_of_other_samples_are_no_pair() -> None:
    with pytest.raises(BadInput, match="same samples"):
        paired_difference([0, 1], [0, 1, 1])
    with pytest.raises(BadInput, match="the statistic of all 2 samples is nan"):
        bootstrap([1, 2], None, lambda rows: float("nan"))
    with pytest.raises(BadInput, match="between 0 and 1"):
        smallest_detectable_difference([0, 1], power=80)


def test_the_sign_flip_test_tries_all_flips_of_few() -> None:
    differences = [0.3, -0.1, 0.4, 0.25, 0.05]
    flipped = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=5)]
    expected = np.mean([value >= abs(sum(differences)) - 1e-12 for value in flipped])
    assert sign_flip_test(differences) == expected
    assert sign_flip_test([*differences, 0, 0]) == expected
    assert sign_flip_test([0.3, -0.1, 0.2, 0.2, 0.25, 0.05], list("aabbcd")) == sign_flip_test([0.2, 0.4, 0.25, 0.05])


def test_of_right_and_wrong_it_is_mcnemars() -> None:
    # 2 * sum(C(15, k) for k <= 3) / 2 ** 15
    assert mcnemar(12, 3) == mcnemar(3, 12) == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    assert sign_flip_test([1] * 12 + [-1] * 3 + [0] * 40) == mcnemar(12, 3)
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1
    assert 0 < mcnemar(5200, 4800) < 1e-4
    assert mcnemar(5200, 4800) == pytest.approx(2 * NormalDist().cdf(-399 / 100), rel=0.02)


@pytest.mark.parametrize("values", ["normal", "coin"])
def test_p_is_uniform_where_nothing_differs(values: str) -> None:
    random = np.random.default_rng(11)
    ps = []
    for _ in range(TRIALS):
        picture = random.choice([-1, 1], size=(30, 1)) if values == "coin" else random.normal(size=(30, 1))
        differences = (picture + 0.1 * random.normal(size=(30, 3)) * (values == "normal")).ravel()
        ps.append(sign_flip_test(differences, [i // 3 for i in range(90)], resamples=300))
    assert 0.02 <= np.mean(np.array(ps) <= 0.05) <= 0.08
    # Thirty coins have few sums; between two of them the test finds less than it may, never more.
    assert (0.42 if values == "normal" else 0.3) <= np.mean(np.array(ps) <= 0.5) <= 0.58
    ignored = [sign_flip_test(np.repeat(random.normal(size=30), 3), resamples=300) <= 0.05 for _ in range(100)]
    assert np.mean(ignored) > 0.12, "clusters ignored: too many false finds"


def test_the_detectable_difference_is_found_four_times_of_five() -> None:
    random = np.random.default_rng(2)
    clusters = [i // 2 for i in range(120)]

    def differences() -> np.ndarray:
        return (random.normal(size=(60, 1)) + random.normal(size=(60, 2))).ravel()

    # Of one draw it is an estimate; its mean over draws is what the theory speaks of.
    size = float(np.mean([smallest_detectable_difference(differences(), clusters) for _ in range(200)]))
    assert size == pytest.approx(2.8016 * np.sqrt(1.5 / 60), rel=0.03)
    found = [sign_flip_test(differences() + size, clusters, resamples=300) <= 0.05 for _ in range(TRIALS)]
    assert 0.74 <= np.mean(found) <= 0.86


def test_a_paired_difference() -> None:
    a, b = [0, 0, 1, 1, 0, 1, 0, 0, 1, 0], [1, 1, 1, 1, 0, 0, 1, 1, 1, 1]
    found = paired_difference(a, b)
    assert (found.better, found.worse, found.n, found.clusters) == (5, 1, 10, 10)
    assert found.p == mcnemar(5, 1)
    spread = float(np.std(np.subtract(b, a), ddof=1) / np.sqrt(10))
    assert found.difference.value == pytest.approx(0.4)
    assert found.difference.error == pytest.approx(spread)
    assert found.difference.low == pytest.approx(0.4 - 2.262157 * spread)
    swapped = paired_difference(b, a)
    assert (swapped.p, swapped.detectable) == (found.p, found.detectable)
    assert swapped.difference.value == -found.difference.value


def test_no_difference_is_called_detectable_that_no_test_could_find() -> None:
    """One change in 900 has an error of 0.1 %, but it takes six of them to be told from none."""
    before, after = np.zeros(900), np.eye(1, 900)[0]
    assert smallest_detectable_difference(after) < 4 / 900  # type: ignore[operator]
    assert paired_difference(before, after).detectable == pytest.approx(6 / 900)
    assert mcnemar(5, 0) > 0.05 > mcnemar(6, 0)


def test_of_many_flips_p_is_the_same_both_ways_and_never_zero() -> None:
    random = np.random.default_rng(0)
    a, b = random.random(3000), random.random(3000) + 0.2
    assert sign_flip_test(b - a) == sign_flip_test(a - b) == pytest.approx(1 / 10_001)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []


def test_students_quantiles() -> None:
    """At the seams of table and expansion, seen through an interval: half its width over the error is t."""
    for count, expected in ((2, 12.7062), (10, 2.26216), (11, 2.22814), (31, 2.04227), (101, 1.98397)):
        found = interval_of_mean(np.arange(count) * 0.5)
        assert (found.high - found.value) / found.error == pytest.approx(expected, abs=1e-4)  # type: ignore[operator]

"""Tests that err as often as they say: whether two systems differ."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.significance import (
    holm,
    mcnemar,
    paired_difference,
    sign_flip_test,
    smallest_detectable_difference,
)
from vlm.metrics.statistics import Interval

TRIALS = 400


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


def test_nothing_depends_on_the_order_of_the_pairs() -> None:
    random = np.random.default_rng(5)
    a, clusters = random.normal(size=75), [i // 3 for i in range(75)]
    b = a + random.normal(0.1, 0.3, 75)
    order = random.permutation(75)
    mixed = [clusters[i] for i in order]
    assert paired_difference(a, b, clusters) == paired_difference(a[order], b[order], mixed)


def test_what_pairs_cannot_tell_is_none() -> None:
    alone = paired_difference([0.1], [0.6])
    assert (alone.difference, alone.p, alone.detectable) == (Interval(0.5), 1.0, None)
    same = paired_difference([0, 1, 1], [0, 1, 1])
    assert (same.difference, same.p, same.detectable, same.better) == (Interval(0), 1.0, None, 0)
    assert paired_difference([0, 1, 0, 1], [1, 0, 1, 0], "aabb").difference == Interval(0)


@pytest.mark.parametrize("method", [sign_flip_test, smallest_detectable_difference])
def test_bad_differences_are_one_line(method: Callable[..., object]) -> None:
    with pytest.raises(BadInput, match="one sample or more"):
        method([])
    with pytest.raises(BadInput, match=r"score 1 is \[nan\]"):
        method([0.1, float("nan")])
    with pytest.raises(BadInput, match="1 clusters for 2"):
        method([0.1, 0.2], ["a"])


def test_scores_of_other_samples_are_no_pair() -> None:
    with pytest.raises(BadInput, match="same samples"):
        paired_difference([0, 1], [0, 1, 1])
    with pytest.raises(BadInput, match="between 0 and 1"):
        smallest_detectable_difference([0, 1], power=80)

from __future__ import annotations

from collections import Counter

import pytest

from vlm.training.schedule import batches, mixture


@pytest.mark.parametrize(
    ("sizes", "shares", "count"),
    [([10], [1.0], 7), ([10], [1.0], 47), ([60, 7, 100], [0.7, 0.2, 0.1], 200), ([5, 5, 5], [1, 1, 1], 40)],
)
def test_every_example_once_before_any_twice(sizes: list[int], shares: list[float], count: int) -> None:
    draws = mixture(sizes, shares, count, seed=3)
    assert len(draws) == count
    assert len(set(draws)) == count  # no draw is repeated: a repeat has another occurrence
    for source, size in enumerate(sizes):
        mine = [draw for draw in draws if draw[0] == source]
        assert abs(len(mine) - count * shares[source] / sum(shares)) <= 1
        times = Counter(example for _, example, _ in mine)
        assert all(0 <= example < size for example in times)
        fewest = min(times.values()) if len(times) == size else 0
        assert max(times.values()) - fewest <= 1
        for example, number in times.items():
            assert sorted(o for _, e, o in mine if e == example) == list(range(number))


def test_the_seed_decides() -> None:
    assert mixture([50, 9], [3, 1], 80, 1) == mixture([50, 9], [3, 1], 80, 1)
    assert mixture([50, 9], [3, 1], 80, 1) != mixture([50, 9], [3, 1], 80, 2)


def test_every_stretch_is_a_mixture() -> None:
    draws = mixture([1000, 1000], [0.5, 0.5], 1000, 0)
    for start in range(0, 1000, 100):
        assert 25 < sum(source for source, _, _ in draws[start : start + 100]) < 75


def test_batches_are_whole() -> None:
    assert batches(list(range(7)), 3) == [[0, 1, 2], [3, 4, 5]]


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match="source 1 is empty"):
        mixture([5, 0], [0.5, 0.5], 10, 0)

"""Which examples each step sees, decided up front: a resumed run continues at the same place by construction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def mixture(sizes: Sequence[int], shares: Sequence[float], count: int, seed: int) -> list[tuple[int, int, int]]:
    """`count` draws of (source, example, occurrence), shuffled.

    Each source gives its share, every example once before any a second time; `occurrence` numbers an example's
    repeats, so that augmentation can differ between them.
    """
    rng = random.Random(seed)
    total, draws = sum(shares), []
    for source, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        wanted = round(count * share / total)
        for occurrence in range(-(-wanted // size)):
            order = list(range(size))
            rng.shuffle(order)
            draws += [(source, example, occurrence) for example in order[: wanted - occurrence * size]]
    while len(draws) < count:
        draws.append((0, rng.randrange(sizes[0]), 0))
    # Shuffle in windows of one pass each would bunch sources; one global shuffle keeps every batch a mixture.
    rng.shuffle(draws)
    return draws[:count]


def batches(draws: Sequence[T], size: int) -> list[Sequence[T]]:
    return [draws[start : start + size] for start in range(0, len(draws) - size + 1, size)]

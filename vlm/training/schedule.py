"""Which examples each step sees, decided up front: a resumed run continues at the same place by construction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")


def mixture(sizes: Sequence[int], shares: Sequence[float], count: int, seed: int) -> list[tuple[int, int, int]]:
    """`count` draws of (source, example, occurrence), shuffled.

    Each source gives its share, every example once before any a second time; `occurrence` numbers an example's
    repeats, so that augmentation can differ between them.
    """
    rng = random.Random(seed)
    draws: list[tuple[int, int, int]] = []
    # Sums of shares are rounded, not the shares: the parts always add up to `count`.
    ends = [round(count * part / sum(shares)) for part in accumulate(shares)]
    for source, size in enumerate(sizes):
        wanted = ends[source] - (ends[source - 1] if source else 0)
        if wanted and not size:
            raise ValueError(f"source {source} is empty, expected examples to draw {wanted} from")
        for occurrence in range(-(-wanted // max(1, size))):
            order = list(range(size))
            rng.shuffle(order)
            draws += [(source, example, occurrence) for example in order[: wanted - occurrence * size]]
    # Shuffle in windows of one pass each would bunch sources; one global shuffle keeps every batch a mixture.
    rng.shuffle(draws)
    return draws


def batches(draws: Sequence[T], size: int) -> list[Sequence[T]]:
    return [draws[start : start + size] for start in range(0, len(draws) - size + 1, size)]

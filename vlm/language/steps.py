"""Decoding steps of a few shapes: rows are filled up to one of some sizes, in which a row's numbers are the same.

`vlm.engine.rows` finds the sizes. B rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from torch import Tensor
from torch.nn import functional as F

T = TypeVar("T")


def tiles(items: Sequence[T], sizes: Sequence[int]) -> Iterator[tuple[Sequence[T], int]]:
    """As many at a time as the largest of `sizes`, which ascend, with the least that has room for them."""
    for begin in range(0, len(items), sizes[-1]):
        part = items[begin : begin + sizes[-1]]
        yield part, next(size for size in sizes if size >= len(part))


def filled(x_BD: Tensor, rows: int) -> Tensor:
    """`[rows, D]`, with zeros behind."""
    return x_BD if len(x_BD) == rows else F.pad(x_BD, (0, 0, 0, rows - len(x_BD)))

"""What a processor makes of a conversation, and a model reads.

B sequences, T tokens, I pictures, N tiles of all pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from torch import Tensor

Grid: TypeAlias = tuple[int, int]
"""Tiles wide and tiles high of one picture, or what else its arrangement knows it by."""
Grids: TypeAlias = Tensor | Sequence[Grid]
"""Of several pictures: `[I, 2]`, or one pair each."""


class Inputs(NamedTuple):
    """In the order of a model's arguments."""

    input_ids: Tensor
    """`[B, T]`, the image token at each slot."""
    pixels: Tensor | None
    """`[N, C, H, W]` float32, the pictures of all sequences in reading order; `None` where there are none."""
    grids: Tensor | None
    """`[I, 2]`, a pair for each picture."""

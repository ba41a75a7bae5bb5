"""Visual tokens of tiles as the rows of one picture.

N tiles, M visual tokens of a tile, m = sqrt(M), R rows and C columns of the whole, W language width.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from vlm.models.tiled import Grid


def joined(visual_NMW: Tensor, grid: Grid) -> Tensor:
    """The tiles of a picture, row by row, beside each other: `[R, C, W]` with R = m * high and C = m * wide."""
    wide, high = grid
    side = isqrt(visual_NMW.shape[1])
    tiles = visual_NMW.unflatten(1, (side, side)).unflatten(0, (high, wide))
    return tiles.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # rows of tiles, then rows of a tile


def lines(rows_RCW: Tensor, newline_W: Tensor) -> Tensor:
    """Each row and a newline after it: `[R * (C + 1), W]`."""
    return torch.cat([rows_RCW, newline_W.expand(len(rows_RCW), 1, -1)], dim=1).flatten(0, 1)

"""In which order the visual tokens of a picture's tiles stand in a prompt, and how many they are.

N tiles, M visual tokens of a tile, m = sqrt(M), D language width.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn

from vlm.conversation.inputs import Grid
from vlm.vision.merging import MergeConfig, merge


class Arrangement(nn.Module):
    """How a model puts the visual tokens of a picture's tiles in order."""

    def views(self, grid: Grid) -> int:
        """Tiles in `pixels` of a picture with this grid."""
        raise NotImplementedError

    def forward(self, visual_NMD: Tensor, grid: Grid) -> Tensor:
        """The picture's visual tokens `[tokens, D]`."""
        raise NotImplementedError


class FrameArrangement(Arrangement):
    """Frames one after another, each seen as a whole; what looks alike may be merged. A clip of n frames has the grid
    (n, 1), a picture (1, 1)."""

    def __init__(self, cfg: MergeConfig):
        super().__init__()
        self.cfg = cfg

    def views(self, grid: Grid) -> int:
        return grid[0] * grid[1]

    def forward(self, visual_NMD: Tensor, grid: Grid) -> Tensor:
        return visual_NMD.flatten(0, 1) if self.cfg.idle else merge(visual_NMD, self.cfg).x_TD


class FlatArrangement(Arrangement):
    """Tile after tile, row by row, and the whole picture last; (0, 0) is the whole alone."""

    def views(self, grid: Grid) -> int:
        return grid[0] * grid[1] + 1

    def forward(self, visual_NMD: Tensor, grid: Grid) -> Tensor:
        return visual_NMD.flatten(0, 1)


class NativeArrangement(Arrangement):
    """One view of a picture's own shape; its grid are the patches across and down."""

    def views(self, grid: Grid) -> int:
        return 1

    def forward(self, visual_NMD: Tensor, grid: Grid) -> Tensor:
        return visual_NMD.flatten(0, 1)


def joined(visual_NMD: Tensor, grid: Grid) -> Tensor:
    """The tiles of a picture, row by row, beside each other: `[m * high, m * wide, D]`."""
    wide, high = grid
    side = isqrt(visual_NMD.shape[1])
    tiles = visual_NMD.unflatten(1, (side, side)).unflatten(0, (high, wide))
    return tiles.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # rows of tiles, then rows of a tile


def lines(rows: Tensor, newline_D: Tensor) -> Tensor:
    """Each row of `[rows, columns, D]` and a newline after it: `[rows * (columns + 1), D]`."""
    return torch.cat([rows, newline_D.expand(len(rows), 1, -1)], dim=1).flatten(0, 1)

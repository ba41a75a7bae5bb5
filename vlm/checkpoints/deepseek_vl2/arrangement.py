"""DeepSeek-VL2's order of visual tokens: rows that end in a newline, the two views parted by a separator.

N tiles (the global view first), M visual tokens of a tile, W language width, m = sqrt(M).
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn

from vlm.tiled_model import Arrangement, Grid


class NewlineArrangement(Arrangement):
    """Two learned vectors among the visual tokens (arXiv:2412.10302, section 2)."""

    def __init__(self, width: int, global_first: bool = True):
        super().__init__()
        self.newline = nn.Parameter(torch.zeros(width))
        self.separator = nn.Parameter(torch.zeros(width))
        self.global_first = global_first

    def views(self, grid: Grid) -> int:
        """The global view and the tiles; a grid of (0, 0) stands for no picture."""
        return 1 + grid[0] * grid[1] if grid[0] * grid[1] else 0

    def forward(self, visual_NMW: Tensor, grid: Grid) -> Tensor:
        """`[m * (m + 1) + 1 + high * m * (wide * m + 1), W]`."""
        wide, high = grid
        side = isqrt(visual_NMW.shape[1])
        tiles = visual_NMW[1:].unflatten(1, (side, side)).unflatten(0, (high, wide))
        local_HWW = tiles.transpose(1, 2).flatten(0, 1).flatten(1, 2)  # rows of tiles, then rows of a tile
        views = [self._lines(visual_NMW[0].unflatten(0, (side, side))), self._lines(local_HWW)]
        first, last = views if self.global_first else reversed(views)
        return torch.cat([first, self.separator[None], last])

    def _lines(self, rows: Tensor) -> Tensor:
        """`[rows, columns, W]` to `[rows * (columns + 1), W]`."""
        return torch.cat([rows, self.newline.expand(len(rows), 1, -1)], dim=1).flatten(0, 1)

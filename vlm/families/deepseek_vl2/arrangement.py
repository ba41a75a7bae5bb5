"""DeepSeek-VL2's order of visual tokens: rows that end in a newline, the two views parted by a separator.

N tiles (the global view first), M visual tokens of a tile, D language width, m = sqrt(M).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.conversation.inputs import Grid
from vlm.models.arrangements import Arrangement, joined, lines


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

    def forward(self, visual_NMD: Tensor, grid: Grid) -> Tensor:
        """`[m * (m + 1) + 1 + high * m * (wide * m + 1), D]`."""
        views = [lines(joined(visual_NMD[:1], (1, 1)), self.newline), lines(joined(visual_NMD[1:], grid), self.newline)]
        first, last = views if self.global_first else reversed(views)
        return torch.cat([first, self.separator[None], last])

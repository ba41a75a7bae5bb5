"""LLaVA-OneVision's visual tokens: how many there are, and in which order (arXiv:2408.03326, section 3.2).

A picture or clip is known by a pair, its `grid`: a picture in tiles by its own (width, height) in pixels, since what of
the tiles is padding follows from them; a picture seen as a whole by (0, 0); a clip of n frames by (n, 0).

N tiles, M visual tokens of a tile, m = sqrt(M), R rows and C columns of a picture's visual tokens, D language width.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.conversation.budget import PictureTokens
from vlm.conversation.inputs import Grid
from vlm.errors import BadInput
from vlm.models.arrangements import Arrangement, joined, lines
from vlm.vision.tiling import Size, best_resolution

WHOLE: Grid = (0, 0)


@dataclass(frozen=True)
class Layout:
    candidates: tuple[Size, ...]
    """The (width, height) that a picture is tiled at; one is chosen."""
    tile: int
    """Side of a tile in pixels."""
    side: int
    """Visual tokens along a side of a tile."""
    most: int
    """More visual tokens than of so many tiles are interpolated to about that (`anyres_max_9`)."""

    @property
    def pooled(self) -> int:
        """Visual tokens along a side of a clip's frame."""
        return -(-self.side // 2)

    def tiles(self, size: Size) -> Grid:
        """Tiles wide and high of a picture of this size."""
        wide, high = best_resolution(size, self.candidates)
        return wide // self.tile, high // self.tile

    def views(self, grid: Grid) -> int:
        """The whole and its tiles, or a clip's frames. Raises `BadInput` for a pair that says none of the three."""
        width, height = grid
        if min(grid) < 0 or (height and not width):
            raise BadInput(f"grids: expected a picture's (width, height), (0, 0) or (frames, 0), got {grid}")
        if not height:
            return max(1, width)
        wide, high = self.tiles(grid)
        return 1 + wide * high

    def unpadded(self, size: Size) -> tuple[int, int]:
        """Rows and columns of visual tokens that show a tiled picture and not what fills it up."""
        width, height = size
        wide, high = (tiles * self.side for tiles in self.tiles(size))
        if width / height > wide / high:
            filled = (high - int(round(height * (wide / width), 7))) // 2
            return high - 2 * filled, wide
        filled = (wide - int(round(width * (high / height), 7))) // 2
        return high, wide - 2 * filled

    def shown(self, size: Size) -> tuple[int, int]:
        """The rows and columns that are left where there would be too many."""
        rows, columns = self.unpadded(size)
        ratio = sqrt(rows * columns / (self.most * self.side**2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)

    def tokens(self, grid: Grid) -> int:
        """Visual tokens of a picture or clip: known before the model runs."""
        return self.picture_tokens(grid).tokens

    def picture_tokens(self, grid: Grid) -> PictureTokens:
        """The same with what they are: the vector that ends a row is a separator."""
        width, height = grid
        if not height:
            shown = width * self.pooled**2 if width else self.side**2
            return PictureTokens(shown + 1, separators=1, frames=max(1, width))
        rows, columns = self.shown(grid)
        return PictureTokens(self.side**2 + rows * (columns + 1), self.tiles(grid), separators=rows)


class AnyResolution(Arrangement):
    """One learned vector ends the rows of a tiled picture, a whole picture and a clip."""

    def __init__(self, layout: Layout, width: int):
        super().__init__()
        self.layout = layout
        self.newline = nn.Parameter(torch.zeros(width))

    def views(self, grid: Grid) -> int:
        return self.layout.views(grid)

    def forward(self, visual_NMD: Tensor, grid: Grid) -> Tensor:
        width, height = grid
        if not height:
            tokens = self._interpolated(visual_NMD, self.layout.pooled) if width else visual_NMD
            return torch.cat([tokens.flatten(0, 1), self.newline[None]])
        rows_RCD = joined(visual_NMD[1:], self.layout.tiles(grid))
        rows, columns = self.layout.unpadded(grid)
        top, left = (rows_RCD.shape[0] - rows) // 2, (rows_RCD.shape[1] - columns) // 2
        rows_RCD = rows_RCD[top : top + rows, left : left + columns]
        if self.layout.shown(grid) != (rows, columns):
            rows_RCD = interpolated(rows_RCD[None], self.layout.shown(grid))[0]
        return torch.cat([visual_NMD[0], lines(rows_RCD, self.newline)])

    def _interpolated(self, visual_NMD: Tensor, side: int) -> Tensor:
        """Frames with so many visual tokens along a side, `[N, side^2, D]`."""
        squares = visual_NMD.unflatten(1, (self.layout.side, self.layout.side))
        return interpolated(squares, (side, side)).flatten(1, 2)


def interpolated(rows_NRCD: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, to so many rows and columns."""
    return F.interpolate(rows_NRCD.permute(0, 3, 1, 2), size=size, mode="bilinear").permute(0, 2, 3, 1)

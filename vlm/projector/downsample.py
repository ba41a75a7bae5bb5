"""DeepSeek-VL2's projector: squares of patches, also of a grid they do not divide, then an MLP.

B images, N patches, D tower width, M visual tokens, O output width (the language model's), f factor.
"""

from __future__ import annotations

from math import isqrt
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.projector.base import Projector
from vlm.projector.mlp import mlp


class DownsampleConfig(Projector):
    kind: Literal["downsample_mlp"] = "downsample_mlp"
    factor: PositiveInt = 2
    """Side of the square of patches that becomes one visual token."""
    depth: PositiveInt = 2
    """Linear layers; there are never fewer than two."""
    ratio: PositiveInt = 1
    """The hidden layers are this many times as wide as the language model."""

    def tokens(self, grid: int) -> int:
        """Visual tokens of one picture whose tower has `grid` x `grid` patches."""
        return (-(-grid // self.factor)) ** 2

    def build(self, tower_width: int, language_width: int) -> DownsampleMLP:
        return DownsampleMLP(self, tower_width, language_width)


class DownsampleMLP(nn.Module):
    """The grid is filled with zeros at its right and bottom (DeepSeek-VL2, arXiv:2412.10302, section 2)."""

    def __init__(self, cfg: DownsampleConfig, tower_width: int, language_width: int):
        super().__init__()
        self.factor = cfg.factor
        hidden = [language_width * cfg.ratio] * max(1, cfg.depth - 1)
        self.mlp = mlp([tower_width * cfg.factor**2, *hidden, language_width])

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Patch tokens `[B, N, D]` of a square grid to visual embeddings `[B, M, O]`, row by row."""
        side = isqrt(tokens_BND.shape[1])
        grid_BDHW = tokens_BND.transpose(1, 2).unflatten(2, (side, side))
        missing = -side % self.factor
        squares_BCM = F.unfold(F.pad(grid_BDHW, (0, missing, 0, missing)), self.factor, stride=self.factor)
        return self.mlp(squares_BCM.transpose(1, 2))  # a square's channels: C = D * f * f, channel slowest

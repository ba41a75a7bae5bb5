"""Pixel shuffle: a square of neighbouring patches becomes one visual token, then a layer or two.

B images, N patches, D tower width, M visual tokens (N / factor^2), O output width (the language model's).
"""

from __future__ import annotations

from math import isqrt
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from vlm.projector.base import Projector


class PixelShuffle(Projector):
    """What both kinds share."""

    factor: PositiveInt
    """Side of the square of patches that becomes one visual token."""

    def tokens(self, grid: int) -> int:
        """Visual tokens of one picture whose tower has `grid` x `grid` patches."""
        if grid % self.factor:
            raise ValueError(f"projector factor {self.factor} does not divide the tower's grid of {grid} patches")
        return (grid // self.factor) ** 2


class PixelShuffleMLPConfig(PixelShuffle):
    kind: Literal["pixel_shuffle_mlp"] = "pixel_shuffle_mlp"
    hidden: PositiveInt

    def build(self, tower_width: int, language_width: int) -> PixelShuffleMLP:
        return PixelShuffleMLP(self, tower_width, language_width)


class PixelShuffleLinearConfig(PixelShuffle):
    kind: Literal["pixel_shuffle_linear"] = "pixel_shuffle_linear"

    def build(self, tower_width: int, language_width: int) -> PixelShuffleLinear:
        return PixelShuffleLinear(self, tower_width, language_width)


class PixelShuffleMLP(nn.Module):
    """Neighbouring patches side by side in the channels (arXiv:1609.05158, inverted), then a two-layer MLP."""

    def __init__(self, cfg: PixelShuffleMLPConfig, tower_width: int, language_width: int):
        super().__init__()
        self.factor = cfg.factor
        wide = tower_width * cfg.factor**2
        self.mlp = nn.Sequential(
            nn.LayerNorm(wide), nn.Linear(wide, cfg.hidden), nn.GELU(), nn.Linear(cfg.hidden, language_width)
        )

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Patch tokens `[B, N, D]` to visual embeddings `[B, M, O]`."""
        return self.mlp(unshuffle(tokens_BND, self.factor))


class PixelShuffleLinear(nn.Module):
    """The same squares, then one matrix (Idefics3, arXiv:2408.12637)."""

    def __init__(self, cfg: PixelShuffleLinearConfig, tower_width: int, language_width: int):
        super().__init__()
        self.factor = cfg.factor
        self.proj = nn.Linear(tower_width * cfg.factor**2, language_width, bias=False)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Patch tokens `[B, N, D]` to visual embeddings `[B, M, O]`."""
        return self.proj(unshuffle(tokens_BND, self.factor))


def unshuffle(tokens_BND: Tensor, factor: int) -> Tensor:
    """`[B, N, D]` of a square grid to `[B, N / factor^2, D * factor^2]`, row by row."""
    side = isqrt(tokens_BND.shape[1])
    if side * side != tokens_BND.shape[1] or side % factor:
        raise ValueError(f"expected a square grid whose side {factor} divides, got {tokens_BND.shape[1]} patches")
    coarse = side // factor
    grid = tokens_BND.unflatten(1, (coarse, factor, coarse, factor))
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)

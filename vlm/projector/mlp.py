"""A linear layer or an MLP on each patch: as many visual tokens as patches.

B images, N patches, D tower width, O output width (the language model's).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import PositiveInt
from torch import nn

from vlm.projector.base import Projector


class MLPConfig(Projector):
    """Linear layers with GELU between them; a `depth` of 1 is one linear layer (LLaVA, arXiv:2304.08485; LLaVA-1.5,
    arXiv:2310.03744, has 2)."""

    kind: Literal["mlp"] = "mlp"
    depth: PositiveInt = 2

    def tokens(self, grid: int) -> int:
        """Visual tokens of one picture whose tower has `grid` x `grid` patches."""
        return grid**2

    def build(self, tower_width: int, language_width: int) -> nn.Sequential:
        """`[B, N, D]` to `[B, N, O]`."""
        return mlp([tower_width] + [language_width] * self.depth)


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers from each width to the next, exact GELU between them."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.GELU(), nn.Linear(narrow, wide)]
    return nn.Sequential(*layers[1:])

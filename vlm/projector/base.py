"""What every kind of projector is: a config that counts its tokens and builds its module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from vlm.config import Config


class Projector(Config):
    """A kind has a field `kind`, whose value is its name in `PROJECTORS`."""

    if TYPE_CHECKING:  # a field here would be dumped before those that a kind has from elsewhere
        kind: str = ""

    def tokens(self, grid: int) -> int:
        """Visual tokens of one picture whose tower has `grid` x `grid` patches. Raises `ValueError` for a grid that
        does not fit."""
        raise NotImplementedError

    def build(self, tower_width: int, language_width: int) -> nn.Module:
        """The module, from patch tokens `[B, N, D]` to visual embeddings `[B, M, D]`, with random weights."""
        raise NotImplementedError

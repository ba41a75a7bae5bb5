"""Perceiver resampler: learned latents, as many as wanted, look at the patches (Flamingo, arXiv:2204.14198, 3.1.1).

B images, N patches, D tower width, M visual tokens (the latents), O output width (the language model's).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.projector.attention import QueryAttention
from vlm.projector.base import Projector


class PerceiverConfig(Projector):
    kind: Literal["perceiver"] = "perceiver"
    latents: PositiveInt = 64
    layers: PositiveInt = 6
    heads: PositiveInt = 16
    head_width: PositiveInt = 96
    ratio: PositiveInt = 4
    """The feed-forward layers are this many times as wide as the tower."""
    activation: Literal["squared_relu", "relu"] = "squared_relu"
    """Flamingo's (appendix A.1.1), or Idefics'."""
    qk_norm: bool = False
    """Normalise queries and keys a head, as Idefics does."""

    def tokens(self, grid: int) -> int:
        """Visual tokens of one picture, whatever the grid."""
        return self.latents

    def build(self, tower_width: int, language_width: int) -> PerceiverResampler:
        return PerceiverResampler(self, tower_width, language_width)


class PerceiverResampler(nn.Module):
    """Latents attend to the patches and to themselves, keys and values of both together; then one matrix.

    What is seen has no positions added: a ViT's patches carry theirs.
    """

    def __init__(self, cfg: PerceiverConfig, tower_width: int, language_width: int):
        super().__init__()
        self.latents_MD = nn.Parameter(torch.randn(cfg.latents, tower_width) * 0.02)
        self.layers = nn.ModuleList([PerceiverLayer(cfg, tower_width) for _ in range(cfg.layers)])
        self.norm = nn.LayerNorm(tower_width)
        self.proj = nn.Linear(tower_width, language_width)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Patch tokens `[B, N, D]` to visual embeddings `[B, M, O]`."""
        latents_BMD = self.latents_MD.expand(len(tokens_BND), -1, -1)
        for layer in self.layers:
            latents_BMD = layer(latents_BMD, tokens_BND)
        return self.proj(self.norm(latents_BMD))


class PerceiverLayer(nn.Module):
    def __init__(self, cfg: PerceiverConfig, width: int):
        super().__init__()
        self.latents_norm, self.tokens_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = QueryAttention(width, width, cfg.heads, cfg.head_width, bias=False, norm=cfg.qk_norm)
        self.ffn_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, cfg.ratio * width, bias=False), nn.Linear(cfg.ratio * width, width, False)
        self.squared = cfg.activation == "squared_relu"

    def forward(self, latents_BMD: Tensor, tokens_BND: Tensor) -> Tensor:
        queries_BMD = self.latents_norm(latents_BMD)
        seen_BSD = torch.cat([self.tokens_norm(tokens_BND), queries_BMD], dim=1)
        latents_BMD = latents_BMD + self.attention(queries_BMD, seen_BSD)
        hidden = F.relu(self.up(self.ffn_norm(latents_BMD)))
        return latents_BMD + self.down(hidden.square() if self.squared else hidden)

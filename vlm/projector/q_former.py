"""Q-Former: learned queries read each other and, every second layer, the picture (BLIP-2, arXiv:2301.12597, 3.1).

B images, N patches, D tower width, M visual tokens (the queries), Q width of the queries, O output width (the language
model's).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.projector.attention import QueryAttention
from vlm.projector.base import Projector


class QFormerConfig(Projector):
    """The sizes of BLIP-2's: BERT's layers, norms after the residuals. There is no dropout."""

    kind: Literal["q_former"] = "q_former"
    queries: PositiveInt = 32
    width: PositiveInt = 768
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    ffn_width: PositiveInt = 3072
    every: PositiveInt = 2
    """The first of every so many layers looks at the picture."""
    norm_eps: PositiveFloat = 1e-12

    @model_validator(mode="after")
    def _fits(self) -> QFormerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    def tokens(self, grid: int) -> int:
        """Visual tokens of one picture, whatever the grid."""
        return self.queries

    def build(self, tower_width: int, language_width: int) -> QFormer:
        return QFormer(self, tower_width, language_width)


class QFormer(nn.Module):
    def __init__(self, cfg: QFormerConfig, tower_width: int, language_width: int):
        super().__init__()
        self.queries_MQ = nn.Parameter(torch.randn(cfg.queries, cfg.width) * 0.02)
        self.norm = nn.LayerNorm(cfg.width, cfg.norm_eps)
        self.layers = nn.ModuleList(
            [QFormerLayer(cfg, None if number % cfg.every else tower_width) for number in range(cfg.layers)]
        )
        self.proj = nn.Linear(cfg.width, language_width)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Patch tokens `[B, N, D]` to visual embeddings `[B, M, O]`."""
        queries_BMQ = self.norm(self.queries_MQ).expand(len(tokens_BND), -1, -1)
        for layer in self.layers:
            queries_BMQ = layer(queries_BMQ, tokens_BND)
        return self.proj(queries_BMQ)


class QFormerLayer(nn.Module):
    def __init__(self, cfg: QFormerConfig, tower_width: int | None):
        """`tower_width` of a layer that looks at the picture."""
        super().__init__()
        width, head_width = cfg.width, cfg.width // cfg.heads
        self.self_attention = QueryAttention(width, width, cfg.heads, head_width, bias=True)
        self.self_norm = nn.LayerNorm(width, cfg.norm_eps)
        self.looks = tower_width is not None
        if tower_width is not None:
            self.cross_attention = QueryAttention(width, tower_width, cfg.heads, head_width, bias=True)
            self.cross_norm = nn.LayerNorm(width, cfg.norm_eps)
        self.up, self.down = nn.Linear(width, cfg.ffn_width), nn.Linear(cfg.ffn_width, width)
        self.ffn_norm = nn.LayerNorm(width, cfg.norm_eps)

    def forward(self, queries_BMQ: Tensor, tokens_BND: Tensor) -> Tensor:
        queries_BMQ = self.self_norm(queries_BMQ + self.self_attention(queries_BMQ, queries_BMQ))
        if self.looks:
            queries_BMQ = self.cross_norm(queries_BMQ + self.cross_attention(queries_BMQ, tokens_BND))
        return self.ffn_norm(queries_BMQ + self.down(F.gelu(self.up(queries_BMQ))))

"""The shared space: two small heads that turn tower and text states into unit vectors.

B rows, N tokens of one row (patches or words), D width of the source, Q learned queries, S shared width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.config import Config


class AlignmentConfig(Config):
    """`text` says whose states the text head reads: a sentence encoder's, or the language model's own."""

    width: PositiveInt
    text: Literal["encoder", "language"]
    image_pool: PositiveInt = 1
    """Side of the square of patches averaged before the image head looks at them."""
    image_queries: PositiveInt
    text_queries: PositiveInt
    hidden: PositiveInt
    dropout: float = 0.0

    def build(self, tower_width: int, text_width: int) -> DualHeads:
        return DualHeads(self, tower_width, text_width)


class PoolingHead(nn.Module):
    """Learned queries each take a softmax mean of the tokens; the means and the pooled vector go through an MLP."""

    def __init__(self, width: int, queries: int, hidden: int, shared: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Linear(width, queries, bias=False)
        wide = width * (queries + 1)
        self.skip = nn.Linear(wide, shared)
        self.mlp = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(wide, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, shared)
        )

    def forward(self, tokens_BND: Tensor, pooled_BD: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Unnormalised vectors `[B, S]`; tokens where `mask_BN` is false are not looked at."""
        tokens_BND = self.norm(tokens_BND)
        scores_BNQ = self.queries(tokens_BND)
        if mask_BN is not None:
            scores_BNQ = scores_BNQ.masked_fill(~mask_BN[..., None], float("-inf"))
        means_BQD = scores_BNQ.softmax(dim=1).transpose(1, 2) @ tokens_BND
        wide = torch.cat([means_BQD.flatten(1), self.norm(pooled_BD)], dim=-1)
        return self.skip(wide) + self.mlp(wide)


class DualHeads(nn.Module):
    def __init__(self, cfg: AlignmentConfig, tower_width: int, text_width: int):
        super().__init__()
        self.image_pool = cfg.image_pool
        self.image = PoolingHead(tower_width, cfg.image_queries, cfg.hidden, cfg.width, cfg.dropout)
        self.text = PoolingHead(text_width, cfg.text_queries, cfg.hidden, cfg.width, cfg.dropout)
        # CLIP's start and ceiling of the temperature (arXiv:2103.00020, section 2.5); SigLIP's start of the bias.
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    @property
    def scale(self) -> Tensor:
        return self.log_scale.clamp(max=math.log(100.0)).exp()

    def embed_images(self, tokens_BND: Tensor, pooled_BD: Tensor) -> Tensor:
        """Unit vectors `[B, S]` of pictures."""
        side, pool = math.isqrt(tokens_BND.shape[1]), self.image_pool
        grid = tokens_BND.unflatten(1, (side // pool, pool, side // pool, pool))
        coarse_BND = grid.mean(dim=(2, 4)).flatten(1, 2).to(self.image.norm.weight.dtype)
        return F.normalize(self.image(coarse_BND, pooled_BD.to(coarse_BND.dtype)), dim=-1)

    def embed_texts(self, tokens_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """Unit vectors `[B, S]` of texts; the pooled vector is the mean of the tokens."""
        weights = mask_BN[..., None].to(tokens_BND.dtype)
        mean_BD = (tokens_BND * weights).sum(1) / weights.sum(1)
        return F.normalize(self.text(tokens_BND, mean_BD, mask_BN), dim=-1)

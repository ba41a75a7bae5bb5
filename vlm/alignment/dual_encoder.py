"""The shared space: two small heads that turn tower and text states into unit vectors.

B rows, N tokens of one row (patches or words), D width of the source, Q learned queries, S shared width.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.alignment.temporal import TemporalPool
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
    frames: PositiveInt | None = None
    """Frames of a clip whose order counts (`temporal.TemporalPool`); `None` takes the mean of any number."""

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
        self.cfg, self.width, self.image_pool = cfg, cfg.width, cfg.image_pool
        self.image = PoolingHead(tower_width, cfg.image_queries, cfg.hidden, cfg.width, cfg.dropout)
        self.text = PoolingHead(text_width, cfg.text_queries, cfg.hidden, cfg.width, cfg.dropout)
        # CLIP's start and ceiling of the temperature (arXiv:2103.00020, section 2.5); SigLIP's start of the bias.
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(-10.0))
        self.temporal = None if cfg.frames is None else TemporalPool(cfg.width, cfg.frames)

    @property
    def scale(self) -> Tensor:
        """What similarities are multiplied by, 1 to 100: the inverse temperature."""
        return _within(self.log_scale, 0.0, math.log(100.0)).exp()

    @property
    def shift(self) -> Tensor:
        """What SigLIP adds to a pair's logit, -30 to 10."""
        return _within(self.bias, -30.0, 10.0)

    def embed_images(self, tokens_BND: Tensor, pooled_BD: Tensor) -> Tensor:
        """Unit vectors `[B, S]` of pictures."""
        side, pool = math.isqrt(tokens_BND.shape[1]), self.image_pool
        coarse_BND = tokens_BND
        if pool > 1:
            grid = tokens_BND.unflatten(1, (side // pool, pool, side // pool, pool))
            coarse_BND = grid.mean(dim=(2, 4)).flatten(1, 2)
        coarse_BND = coarse_BND.to(self.image.norm.weight.dtype)
        return F.normalize(self.image(coarse_BND, pooled_BD.to(coarse_BND.dtype)), dim=-1)

    def embed_frames(self, frames_BFS: Tensor) -> Tensor:
        """Unit vectors `[B, S]` of clips from those of their frames; too many frames are thinned out evenly."""
        if self.temporal is None:
            return F.normalize(frames_BFS.mean(dim=1), dim=-1)
        frames, places = frames_BFS.shape[1], len(self.temporal.place_FD)
        if frames > places:
            frames_BFS = frames_BFS[:, torch.linspace(0, frames - 1, places).round().long()]
        return self.temporal(frames_BFS)

    def embed_texts(self, tokens_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """Unit vectors `[B, S]` of texts; the pooled vector is the mean of the tokens."""
        tokens_BND = tokens_BND.to(self.text.norm.weight.dtype)
        weights = mask_BN[..., None].to(tokens_BND.dtype)
        mean_BD = (tokens_BND * weights).sum(1) / weights.sum(1)
        return F.normalize(self.text(tokens_BND, mean_BD, mask_BN), dim=-1)


def _within(value: Tensor, low: float, high: float) -> Tensor:
    """The value clamped; unlike torch's clamp, one that is outside can learn its way back."""
    clamped: Tensor = _Within.apply(value, low, high)
    return clamped


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = low, high
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (value,), (low, high) = ctx.saved_tensors, ctx.bounds
        outward = ((value <= low) & (grad > 0)) | ((value >= high) & (grad < 0))  # a step goes against the gradient
        return grad.masked_fill(outward, 0.0), None, None

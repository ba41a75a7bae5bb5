"""What attention keeps of the tokens read so far, in one preallocated block.

B batch, S tokens, a heads and w width of one kept tensor (`cached` of the attention's config).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlm.language.config import LanguageConfig


class KVCache:
    """Room for `capacity` tokens of `batch` sequences.

    Grouped-query attention keeps keys and values; latent attention one vector of `kv_rank + rope_width` numbers.
    """

    def __init__(self, cfg: LanguageConfig, batch: int, capacity: int, like: Tensor):
        self.parts = [
            torch.zeros(cfg.layers, batch, heads, capacity, width, dtype=like.dtype, device=like.device)
            for heads, width in cfg.attention.cached(cfg)
        ]
        self.capacity = capacity
        self.length = 0

    def append(self, layer: int, *new_BaTw: Tensor) -> tuple[Tensor, ...]:
        """Store what a layer keeps of new tokens; return all it has kept so far, `[B, a, length + T, w]` each.

        `length` moves only when `advance` is called, after the last layer. Raises `ValueError` where the cache is full.
        """
        end = self.length + new_BaTw[0].shape[2]
        if end > self.capacity:
            raise ValueError(f"cache holds {self.capacity} tokens, asked to hold {end}")
        for part, new in zip(self.parts, new_BaTw, strict=True):
            part[layer, :, :, self.length : end] = new
        return tuple(part[layer, :, :, :end] for part in self.parts)

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def keep(self, rows_B: Tensor) -> None:
        """Keep only these rows of the batch (finished sequences drop out)."""
        self.parts = [part[:, rows_B] for part in self.parts]

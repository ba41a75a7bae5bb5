"""Keys and values of the tokens read so far, in one preallocated block a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from vlm.language.config import LanguageConfig


class KVCache:
    """Room for `capacity` tokens of `batch` sequences; layer `l` holds keys and values `[B, G, capacity, K]`."""

    def __init__(self, cfg: LanguageConfig, batch: int, capacity: int, like: Tensor):
        shape = (cfg.layers, batch, cfg.kv_heads, capacity, cfg.head_width)
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.capacity = capacity
        self.length = 0

    def append(self, layer: int, key_BGTK: Tensor, value_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store a step's keys and values; return all of the layer's so far, `[B, G, length + T, K]`.

        `length` moves only when `advance` is called, after the last layer.
        """
        end = self.length + key_BGTK.shape[2]
        if end > self.capacity:
            raise ValueError(f"cache holds {self.capacity} tokens, asked to hold {end}")
        self.keys[layer, :, :, self.length : end] = key_BGTK
        self.values[layer, :, :, self.length : end] = value_BGTK
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def keep(self, rows_B: Tensor) -> None:
        """Keep only these rows of the batch (finished sequences drop out)."""
        self.keys = self.keys[:, rows_B]
        self.values = self.values[:, rows_B]

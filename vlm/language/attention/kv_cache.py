"""What attention keeps of the tokens read so far, in blocks that are taken once: a step copies its own tokens alone.

B batch, S tokens, a heads and w width of one kept tensor (`cached` of the attention's config), N blocks of tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vlm.language.config import LanguageConfig


class KVCache:
    """Room for `capacity` tokens of `batch` sequences.

    Grouped-query attention keeps keys and values; latent attention one vector of `kv_rank + rope_width` numbers. A
    layer with a window has room for two windows: when it is full, the newest is moved to its front.
    """

    def __init__(self, cfg: LanguageConfig, batch: int, capacity: int, like: Tensor):
        self.windows = [cfg.window_of(layer) for layer in range(cfg.layers)]
        # Not filled with zeros: memory that no token has reached is not touched.
        self.parts = [
            [
                torch.empty(batch, heads, room, width, dtype=like.dtype, device=like.device)
                for heads, width in cfg.attention.cached(cfg)
            ]
            for room in (capacity if window is None else min(capacity, 2 * window) for window in self.windows)
        ]
        self.dropped = [0] * cfg.layers
        self.capacity = capacity
        self.length = 0
        self._means: dict[int, Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes taken, whether there are tokens in them or not."""
        return sum(part.nbytes for parts in self.parts for part in parts)

    def append(self, layer: int, *new_BaTw: Tensor) -> tuple[Tensor, ...]:
        """Store what a layer keeps of new tokens; return all it has kept so far, `[B, a, S, w]` each.

        S is length + T, or less in a layer with a window: at least what the new tokens see. `length` moves only when
        `advance` is called, after the last layer; setting it back forgets tokens. Raises `ValueError` where the cache
        is full, or was set back to before what a window left of it.
        """
        end = self.length + new_BaTw[0].shape[2]
        if end > self.capacity:
            raise ValueError(f"cache holds {self.capacity} tokens, asked to hold {end}")
        parts, window, dropped = self.parts[layer], self.windows[layer], self.dropped[layer]
        if window is not None and dropped and self.length < dropped + window - 1:
            raise ValueError(f"layer {layer} keeps tokens from {dropped} on, asked to go on at {self.length}")
        start, stop = self.length - dropped, end - dropped
        if window is None or stop <= parts[0].shape[2]:
            for part, new in zip(parts, new_BaTw, strict=True):
                part[:, :, start:stop] = new
            return tuple(part[:, :, :stop] for part in parts)
        near = slice(max(0, start - window + 1), start)
        seen = tuple(torch.cat([part[:, :, near], new], dim=2) for part, new in zip(parts, new_BaTw, strict=True))
        keep = min(window - 1, seen[0].shape[2])
        for part, all_BaSw in zip(parts, seen, strict=True):
            part[:, :, :keep] = all_BaSw[:, :, all_BaSw.shape[2] - keep :]
        self.dropped[layer] = end - keep
        return seen

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def block_means(self, layer: int, keys_BaSw: Tensor, block: int) -> Tensor:
        """`block_means` of the keys that `append` just gave, `[B, a, N, w]`; each block's is made once."""
        known = self._means.get(layer)
        first = 0 if known is None else min(known.shape[2], self.length // block)
        means = block_means(keys_BaSw[:, :, first * block :], block)
        self._means[layer] = means if known is None else torch.cat([known[:, :, :first], means], dim=2)
        return self._means[layer]

    def keep(self, rows_B: Tensor) -> None:
        """Keep only these rows of the batch (finished sequences drop out)."""
        self.parts = [[self._rows(part, rows_B) for part in parts] for parts in self.parts]
        self._means = {layer: means[rows_B] for layer, means in self._means.items()}

    def _rows(self, part: Tensor, rows_B: Tensor) -> Tensor:
        used = part[:, :, : self.length][rows_B]
        kept = used.new_empty(len(used), *part.shape[1:])
        kept[:, :, : used.shape[2]] = used
        return kept


def block_means(keys_BaSw: Tensor, block: int) -> Tensor:
    """The mean key of every `block` tokens, `[B, a, N, w]`; what is left at the end has none."""
    count = keys_BaSw.shape[2] // block
    return keys_BaSw[:, :, : count * block].unflatten(2, (count, block)).mean(3)

"""What attention keeps of the tokens read so far, in blocks that are taken once: a step copies its own tokens alone.

B batch, S tokens, a heads and w width of one kept tensor (`cached` of the attention's config), N blocks of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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

    def __init__(self, cfg: LanguageConfig, batch: int, capacity: int, like: Tensor, layers: range | None = None):
        """Of all layers of the trunk, or of `layers`: those of multi-token heads are behind the last."""
        layers = range(cfg.layers) if layers is None else layers
        self.first = layers.start
        self.windows = [cfg.window_of(layer) for layer in layers]
        # Not filled with zeros: memory that no token has reached is not touched.
        self.parts = [
            [
                torch.empty(batch, heads, room, width, dtype=like.dtype, device=like.device)
                for heads, width in cfg.attention.cached(cfg)
            ]
            for room in (capacity if window is None else min(capacity, 2 * window) for window in self.windows)
        ]
        self.dropped = [0] * len(layers)
        self.capacity = capacity
        self.length = 0
        self._means: dict[int, Tensor] = {}

    @staticmethod
    def bytes_of(cfg: LanguageConfig, tokens: int, itemsize: int, layers: range | None = None) -> int:
        """Bytes that so many tokens of one sequence fill."""
        numbers = sum(heads * width for heads, width in cfg.attention.cached(cfg))
        windows = [cfg.window_of(layer) for layer in (range(cfg.layers) if layers is None else layers)]
        return itemsize * numbers * sum(tokens if window is None else min(tokens, 2 * window) for window in windows)

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
        layer, end = layer - self.first, self.length + new_BaTw[0].shape[2]
        if end > self.capacity:
            raise ValueError(f"cache holds {self.capacity} tokens, asked to hold {end}")
        parts, window, dropped = self.parts[layer], self.windows[layer], self.dropped[layer]
        if window is not None and dropped and self.length < dropped + window - 1:
            raise ValueError(
                f"layer {layer + self.first} keeps tokens from {dropped} on, asked to go on at {self.length}"
            )
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

    def taken(self, begin: int) -> Taken:
        """A copy of what was kept since token `begin`, for another cache to go on from."""
        layers = []
        for parts, window, dropped in zip(self.parts, self.windows, self.dropped, strict=True):
            first = begin if window is None else 0  # of a window all that is left: what follows must find the same
            layers.append([part[:, :, first : self.length - dropped].clone() for part in parts])
        return Taken(begin, self.length, layers, list(self.dropped))

    def restore(self, taken: Sequence[Taken]) -> None:
        """Take in what other caches had read of the same tokens from the first on, a piece after another; then this
        cache is as if it had read them itself. It has to be empty, and of one sequence."""
        last = taken[-1]
        for layer, parts in enumerate(self.parts):
            pieces = taken if self.windows[layer] is None else [last]
            for number, part in enumerate(parts):
                at = 0
                for piece in pieces:
                    new = piece.layers[layer][number]
                    part[:, :, at : at + new.shape[2]] = new
                    at += new.shape[2]
        self.dropped, self.length = list(last.dropped), last.end

    def keep(self, rows_B: Tensor) -> None:
        """Keep only these rows of the batch (finished sequences drop out)."""
        self.parts = [[self._rows(part, rows_B) for part in parts] for parts in self.parts]
        self._means = {layer: means[rows_B] for layer, means in self._means.items()}

    def _rows(self, part: Tensor, rows_B: Tensor) -> Tensor:
        used = part[:, :, : self.length][rows_B]
        kept = used.new_empty(len(used), *part.shape[1:])
        kept[:, :, : used.shape[2]] = used
        return kept


@dataclass(frozen=True)
class Taken:
    """What a cache kept of tokens `begin` to `end`, `[B, a, S, w]` each; of a layer with a window, of those it sees."""

    begin: int
    end: int
    layers: list[list[Tensor]]
    dropped: list[int]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for parts in self.layers for part in parts)


class Apart:
    """The caches of sequences that are at different places, whose new tokens are read as one, `[1, T, D]`: those of a
    sequence one behind the other, then those of the next.

    Attention goes through them one by one, so that what a sequence gets does not depend on its neighbours. There may be
    more tokens than the sequences have; the others are filler, and attend to nothing.
    """

    def __init__(
        self, caches: Sequence[KVCache], sizes: tuple[int, ...] = (1,), counts: Sequence[int] | None = None
    ):  # fmt: skip
        """`sizes` are numbers of rows in which products give a row the same (`vlm.language.steps`); `counts` are the
        new tokens of each sequence, by default one."""
        self.caches, self.sizes, self.counts = caches, sizes, counts or [1] * len(caches)

    @property
    def places(self) -> list[int]:
        """Of each new token in its sequence."""
        counted = zip(self.caches, self.counts, strict=True)
        return [place for cache, count in counted for place in range(cache.length, cache.length + count)]

    def advance(self, tokens: int) -> None:
        for cache, count in zip(self.caches, self.counts, strict=True):
            cache.advance(count)


def each(cache: KVCache | Apart | None) -> list[tuple[slice, KVCache | None]]:
    """Which of the new tokens are attended to together, and in which cache."""
    if not isinstance(cache, Apart):
        return [(slice(None), cache)]
    ends = accumulate(cache.counts)
    counted = zip(cache.caches, cache.counts, ends, strict=True)
    return [(slice(end - count, end), one) for one, count, end in counted]


def whole(parts: Sequence[Tensor], tokens: int) -> Tensor:
    """What `each` had `[B, H, T, K]` as one again; filler is zero."""
    if len(parts) == 1 and parts[0].shape[2] == tokens:
        return parts[0]
    first = parts[0]
    filler = first.new_zeros(*first.shape[:2], tokens - sum(part.shape[2] for part in parts), first.shape[3])
    return torch.cat([*parts, filler], dim=2)


def block_means(keys_BaSw: Tensor, block: int) -> Tensor:
    """The mean key of every `block` tokens, `[B, a, N, w]`; what is left at the end has none."""
    count = keys_BaSw.shape[2] // block
    return keys_BaSw[:, :, : count * block].unflatten(2, (count, block)).mean(3)

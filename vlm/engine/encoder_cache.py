"""Visual tokens of pictures seen lately, by their content. M visual tokens, D width."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class EncoderCache:
    """The least lately used go when there are more than `most` bytes."""

    def __init__(self, most: int):
        self._most = most
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self.nbytes = 0
        self.encoded = 0
        """Visual tokens, so far."""

    def get(self, key: bytes, encode: Callable[[], Sequence[Tensor]]) -> Tensor:
        """`[M, D]` of a picture, or of all frames of a clip."""
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        made = torch.cat(list(encode()))
        self.encoded += len(made)
        if made.nbytes <= self._most:
            self._known[key] = made
            self.nbytes += made.nbytes
            while self.nbytes > self._most:
                self.nbytes -= self._known.popitem(last=False)[1].nbytes
        return made

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

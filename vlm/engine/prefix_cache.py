"""What was read of prompts, for those that begin alike: keys and values of whole chunks, found by their content.

A chunk's key covers everything before it - tokens, pictures, the model, who asked - so that one that is found stands
behind the same beginning; the tokens themselves are compared as well. Chunks are cut by the prompt alone
(`vlm.engine.chunks`), so what is found is, to the bit, what would be computed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from vlm.language.attention.kv_cache import Taken


@dataclass(frozen=True)
class Stretch:
    """One chunk of a prompt as it is looked up."""

    key: bytes
    tokens: tuple[int, ...]


def stretches(ids: Sequence[int], parts: Sequence[range], pictures: Sequence[tuple[int, bytes]], root: bytes) -> list[
    Stretch
]:  # fmt: skip
    """The chunks of a prompt with their keys. `pictures` are the first slot and the key of each, in reading order;
    `root` tells models and clients apart."""
    found, key = [], root
    for part in parts:
        tokens = tuple(ids[part.start : part.stop])
        seen = b"".join(name for place, name in pictures if place < part.stop)
        counts = f"{part.start} {len(tokens)} {len(seen)} ".encode()
        text = b"".join(token.to_bytes(8, "big", signed=True) for token in tokens)
        key = hashlib.sha256(key + counts + text + seen).digest()
        found.append(Stretch(key, tokens))
    return found


class PrefixCache:
    """Chunks that were read lately; from any thread. `nbytes` is what they take; `shrink` makes room."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[tuple[int, ...], Taken]] = OrderedDict()
        self._lock = threading.RLock()
        self.nbytes = 0

    def found(self, wanted: Sequence[Stretch]) -> list[Taken]:
        """Of the first chunks of a prompt as many as are known without a gap."""
        found: list[Taken] = []
        with self._lock:
            for stretch in wanted:
                tokens, taken = self._known.get(stretch.key, ((), None))
                if taken is None or tokens != stretch.tokens:
                    break
                found.append(taken)
            self.touch(wanted[: len(found)])
        return found

    def touch(self, used: Sequence[Stretch]) -> None:
        """These were used now; those behind go before those they stand on."""
        with self._lock:
            for stretch in reversed(used):
                if stretch.key in self._known:
                    self._known.move_to_end(stretch.key)

    def keep(self, stretch: Stretch, taken: Taken) -> None:
        with self._lock:
            if stretch.key not in self._known:
                self._known[stretch.key] = stretch.tokens, taken
                self.nbytes += taken.nbytes

    def __contains__(self, stretch: Stretch) -> bool:
        return stretch.key in self._known

    def shrink(self, most: int) -> None:
        """Forget the least lately used until there are at most so many bytes."""
        with self._lock:
            while self._known and self.nbytes > most:
                self.nbytes -= self._known.popitem(last=False)[1][1].nbytes

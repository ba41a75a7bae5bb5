"""A reply's text as its tokens come: what no later token can change, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer gives for a character whose last bytes are still to come."""


class ReplyText:
    """Takes tokens, gives text."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()):
        """`decode` makes text of tokens, without control tokens; the reply ends before any of `stop`."""
        self._decode, self._stop = decode, tuple(filter(None, stop))
        self._ids: list[int] = []
        self._base = self._read = 0
        """Tokens from `base` on are decoded together, since a token's text depends on what is before it; those before
        `read` have been."""
        self._held = ""
        """Known, and perhaps the beginning of a stop string."""
        self.stopped = False

    def take(self, token: int) -> str:
        """The text that is certain with this token."""
        if self.stopped:
            return ""
        self._ids.append(token)
        before = self._decode(self._ids[self._base : self._read])
        after = self._decode(self._ids[self._base :])
        if after.endswith(HALF) or len(after) <= len(before):
            return ""
        self._base, self._read = self._read, len(self._ids)
        return self._passed(after[len(before) :])

    def end(self) -> str:
        """What is left when no token comes any more."""
        if self.stopped:
            return ""
        before = self._decode(self._ids[self._base : self._read])
        rest = self._passed(self._decode(self._ids[self._base :])[len(before) :])
        if self.stopped:
            return rest
        rest, self._held = rest + self._held, ""
        return rest

    def _passed(self, new: str) -> str:
        """Of the text so far what is no stop string, nor may be the beginning of one."""
        text = self._held + new
        found = [place for word in self._stop if (place := text.find(word)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, word) for word in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, word: str) -> int:
    """The longest end of `text` that `word` begins with."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:n])), 0)

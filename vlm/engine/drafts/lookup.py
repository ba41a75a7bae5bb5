"""Guesses of a reply out of what was read already: a question about a text is often answered in its words.

The tokens that came after the last ones when they stood in the prompt or reply before (prompt look-up decoding, an
n-gram draft: arXiv:2304.04487). They cost nothing to find, and only the model says whether they are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vlm.engine.drafts.drafter import Drafter
from vlm.engine.job import Reply

LEAST, MOST = 2, 4
"""Tokens of a match: fewer say too little, and more find hardly anything that these do not."""


class LookUp(Drafter):
    name = "lookup"

    def __init__(self, most: int):
        self.most = most

    def draft(self, asked: Sequence[tuple[Reply, int]]) -> list[list[int]]:
        return [self._seen(reply).draft(most) for reply, most in asked]

    def _seen(self, reply: Reply) -> Seen:
        prompt = reply.job.request.prompt.ids
        seen: Seen | None = reply.drafts.get(self.name)
        if seen is None:
            seen = reply.drafts[self.name] = Seen(prompt)
        seen.extend(reply.tokens[len(seen) - len(prompt) :])
        return seen


class Seen:
    """The tokens of one prompt and its reply, with where each run of `least` to `most` of them was seen last."""

    def __init__(self, ids: Iterable[int] = (), least: int = LEAST, most: int = MOST):
        if not 1 <= least <= most:
            raise ValueError(f"expected matches of at least one token, got {least} to {most}")
        self._lengths = range(least, most + 1)
        self._ids: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        """Run -> the place behind its last appearance that has a token behind it."""
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def extend(self, ids: Iterable[int]) -> None:
        """Tokens that came; a few entries of a table for each."""
        for token in ids:
            end = len(self._ids)
            for length in self._lengths:
                if length <= end:
                    self._behind[tuple(self._ids[end - length :])] = end
            self._ids.append(token)

    def draft(self, most: int) -> list[int]:
        """Up to `most` tokens that followed where the last ones were before, in the longest match and of those the
        latest; none where there is no match."""
        for length in reversed(self._lengths):
            if length <= len(self._ids):
                begin = self._behind.get(tuple(self._ids[-length:]))
                if begin is not None:
                    return self._ids[begin : begin + most]
        return []

"""What guesses the next tokens of replies. Only the model says which guesses are right, so none changes a reply.

T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from vlm.engine.job import Reply


class Drafter(Protocol):
    """What it keeps of a reply stands in `Reply.drafts` under its name, and goes with the reply's cache."""

    name: str
    most: int
    """Guesses of a reply at a time."""

    def bytes_of(self, tokens: int) -> int:
        """Memory for a reply of so many tokens, its prompt's among them."""
        return 0

    def saw(self, reply: Reply, begin: int, states_TD: Tensor) -> None:
        """The model's normalised states at tokens of a prompt and its reply, from place `begin` on."""
        return None

    def catch_up(self, replies: Sequence[Reply]) -> list[Reply]:
        """Read what is new of their prompts, as much as one step may; those that are guessed for now."""
        return list(replies)

    def draft(self, asked: Sequence[tuple[Reply, int]]) -> list[list[int]]:
        """Up to so many tokens behind the last of each."""

"""What a model said, and what it read and wrote for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm.config import Config


@dataclass(frozen=True)
class Reply:
    """What a model said."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """As the model's server counts them; None where it does not."""
    cut: bool = False
    """Whether it ended because it was as long as it might be."""
    refused: str = ""
    """Why there is none: this request's own fault, in the server's words."""


class Usage(Config):
    """What a model behind a server has read and written for a task, in tokens as the server counts them."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    """Requests whose tokens the server does not tell."""
    cut: int = 0
    """Replies that ended because they were as long as they might be."""
    refused: int = 0
    """Requests that the server refused: each counts as an empty answer."""
    first_refusal: str = ""
    cost: float | None = None
    """What the tokens cost at the prices given; None without prices."""

    def with_replies(self, replies: Sequence[Reply]) -> Usage:
        """This and some replies more."""
        return Usage(
            requests=self.requests + len(replies),
            prompt_tokens=self.prompt_tokens + sum(reply.prompt_tokens or 0 for reply in replies),
            completion_tokens=self.completion_tokens + sum(reply.completion_tokens or 0 for reply in replies),
            uncounted=self.uncounted + sum(reply.prompt_tokens is None for reply in replies),
            cut=self.cut + sum(reply.cut for reply in replies),
            refused=self.refused + sum(bool(reply.refused) for reply in replies),
            first_refusal=self.first_refusal or next((r.refused for r in replies if r.refused), ""),
        )

    def priced(self, prices: tuple[float, float] | None) -> Usage:
        """With its cost, by the prices of a million tokens read and written."""
        if prices is None:
            return self
        cost = (self.prompt_tokens * prices[0] + self.completion_tokens * prices[1]) / 1e6
        return self.model_copy(update={"cost": round(cost, 9)})

    def __add__(self, other: Usage) -> Usage:
        counts = ("requests", "prompt_tokens", "completion_tokens", "uncounted", "cut", "refused")
        costs = [one.cost for one in (self, other) if one.cost is not None]
        return Usage(
            **{name: getattr(self, name) + getattr(other, name) for name in counts},
            first_refusal=self.first_refusal or other.first_refusal,
            cost=round(sum(costs), 9) if costs else None,
        )

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost {self.cost:g}"
        counted = f"{self.prompt_tokens:,} tokens read, {self.completion_tokens:,} written"
        untold = f", {self.uncounted:,} requests not counted" if self.uncounted else ""
        return f"{self.requests:,} requests, {counted}{untold}{cost}"

    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know of it."""
        told = []
        if self.refused:
            counted = f"{self.refused} of {self.requests} requests were refused and count as empty answers"
            told.append(f"{counted}, the first: {self.first_refusal}")
        if self.cut:
            told.append(f"{self.cut} of {self.requests} replies were cut at their most tokens")
        return tuple(told)

"""A request on its way through the engine, and each of its replies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlm.engine.chunks import Shown
from vlm.engine.prefix_cache import Stretch
from vlm.engine.request import Finish, Followed, Piece, Request, Token, Usage
from vlm.engine.texts import ReplyText
from vlm.language.attention.kv_cache import KVCache
from vlm.models.processor import Processor

Heard = Callable[[Piece], None]


@dataclass(eq=False)
class Job:
    """A request with what is known of it before it is read."""

    request: Request
    heard: Heard
    shown: list[Shown]
    keys: list[bytes]
    """Of its pictures and clips."""
    stretches: list[Stretch]
    parts: list[range]
    until: float | None
    """By the monotonic clock."""
    replies: list[Reply] = field(default_factory=list)
    number: int = 0
    """In the order they came."""
    cancelled: bool = False
    cached: int = 0
    """Tokens of the prompt that were found read."""

    def usage(self) -> Usage:
        image = sum(len(item.places) for item in self.shown)
        written = sum(len(reply.tokens) for reply in self.replies)
        return Usage(len(self.request.prompt.ids), image, self.cached, written)

    def late(self) -> bool:
        return self.until is not None and time.monotonic() >= self.until


class Ticket:
    """A request that was taken."""

    def __init__(self, job: Job, wake: Callable[[], None]):
        self._job, self._wake = job, wake

    def cancel(self) -> None:
        """Nobody waits for it any more: its memory is free before the next step. From any thread, any number of
        times."""
        self._job.cancelled = True
        self._wake()


class Reply:
    """One reply of a job: it is read and then written.

    Its cache may be taken away at any time. It is read again then, and the tokens it had are fed again, one by one as
    they were chosen, so that it goes on to the bit where it was.
    """

    def __init__(self, job: Job, choice: int, seed: int, processor: Processor):
        self.job, self.choice, self.seed = job, choice, seed
        self.tokens: list[int] = []
        self.fed = 0
        """Of them in the cache."""
        self.read = 0
        """Chunks of the prompt in the cache."""
        self.coming = 0
        """Tokens of a chunk that is about to be read."""
        self.cache: KVCache | None = None
        self.text = ReplyText(processor.decode, job.request.stop)
        self.followed: Followed | None = None
        if job.request.constraint is not None:
            self.followed = job.request.constraint.begin()
        self.drafts: dict[str, Any] = {}
        """What drafters keep of it (`vlm.engine.drafts`), by their names."""
        self.finish: Finish | None = None
        self._told: list[Token] = []

    @property
    def writing(self) -> bool:
        """Whether the prompt is read."""
        return self.cache is not None and self.read == len(self.job.parts)

    @property
    def held(self) -> int:
        """Tokens in the cache, or about to be."""
        cache = self.cache  # another thread may look while it is given back
        return 0 if cache is None else cache.length + self.coming

    def let_go(self) -> None:
        """Give the cache back, and what drafters keep."""
        self.cache, self.read, self.fed, self.coming = None, 0, 0, 0
        self.drafts.clear()

    def take(self, token: Token, stop: frozenset[int]) -> None:
        """Go on with a chosen token, and tell of it."""
        ends = token.token in stop
        new = ""
        if not ends:
            self.tokens.append(token.token)
            self._told.append(token)
            new = self.text.take(token.token)
            if self.followed is not None:
                self.followed.take(token.token)
        if ends or self.text.stopped:
            self._end("stop", new)
        elif len(self.tokens) >= self.job.request.max_tokens:
            self._end("length", new)
        else:
            self._tell(new)

    def end(self, finish: Finish) -> None:
        """Before it is whole."""
        if self.finish is None:
            self._end(finish, "")

    def _end(self, finish: Finish, new: str) -> None:
        self.finish = finish
        self.let_go()
        over = all(reply.finish is not None for reply in self.job.replies)
        self._tell(new + self.text.end(), finish, self.job.usage() if over else None)

    def _tell(self, text: str, finish: Finish | None = None, usage: Usage | None = None) -> None:
        tokens, self._told = tuple(self._told), []
        if text or finish or tokens:
            self.job.heard(Piece(self.choice, text, tokens, finish, usage))


def inputs(reply: Reply, part: range, visual: list[Tensor]) -> list[Tensor]:
    """Of a prompt's visual tokens `[M, D]` a picture those that stand in one chunk."""
    shown = reply.job.shown
    return [
        tokens_MD[[number for number, place in enumerate(item.places) if place in part]]
        for item, tokens_MD in zip(shown, visual, strict=True)
        if len(tokens_MD)
    ]


def ids_of(reply: Reply, part: range, device: torch.device) -> Tensor:
    """`[1, T]`."""
    return torch.tensor([reply.job.request.prompt.ids[part.start : part.stop]], device=device)

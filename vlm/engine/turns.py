"""Whose turn it is: by priority, then what a client has had so far, then who came first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from vlm.engine.job import Reply


class Turns:
    """Counts what each client is given, so that one with many requests does not hold up one with few (virtual token
    counters, arXiv:2401.00588)."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def came(self, client: str, present: Iterable[str]) -> None:
        """A client without requests begins where the least served of the others is: idle time earns nothing."""
        others = {*present}
        if client not in others:
            self._given[client] = max(self._given[client], min((self._given[other] for other in others), default=0))
        if not others:
            self._given.clear()

    def gave(self, client: str, tokens: int) -> None:
        self._given[client] += tokens

    def next(self, replies: Sequence[Reply], running: int, busy: Sequence[Reply]) -> Reply | None:
        """Whose prompt is read next, where `running` may have begun: none of which a chunk is about to be read, and
        none that begins as one does that is being read, since it will find what that one has read."""
        begun = [reply for reply in replies if reply.cache is not None and reply.finish is None]
        firsts = {reply.job.stretches[0].key for reply in begun if not reply.writing}
        waiting = [
            reply for reply in replies
            if reply.finish is None and not reply.writing and reply not in busy
            and (reply.cache is not None or (len(begun) < running and not self._will_find(reply, firsts)))
        ]  # fmt: skip
        return min(waiting, key=self.key, default=None)

    def _will_find(self, reply: Reply, firsts: set[bytes]) -> bool:
        return len(reply.job.stretches) > 1 and reply.job.stretches[0].key in firsts

    def key(self, reply: Reply) -> tuple[int, int, int, int, int]:
        """The least is next. One that has begun goes before others of its priority: it holds memory."""
        request = reply.job.request
        return request.priority, reply.cache is None, self._given[request.client], reply.job.number, reply.choice

    def last(self, replies: Iterable[Reply]) -> Reply:
        """The one that gives way where memory runs out: of the least priority the newest."""
        return max(replies, key=self.order)

    def order(self, reply: Reply) -> tuple[int, int, int]:
        """The greatest gives way."""
        return reply.job.request.priority, reply.job.number, reply.choice

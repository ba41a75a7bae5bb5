"""The engine: requests of many callers, answered together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vlm.engine.request import Piece, Request


class Ticket(Protocol):
    """A request that was taken."""

    def cancel(self) -> None:
        """Nobody waits for it any more: its memory is free at once. From any thread, any number of times."""


class Answers(Protocol):
    """What servers and commands ask of an engine."""

    def submit(self, request: Request, heard: Callable[[Piece], None]) -> Ticket:
        """Take a request; `heard` is called with its pieces, in the engine's thread, until each choice has finished.

        Raises `BadInput` for what can never be answered (too long, a constraint that is none), and `Full`.
        """

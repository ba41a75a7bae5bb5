"""A reply on its way from the engine's thread to its reader, in a buffer of bounded size."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Protocol

import anyio

from vlm.engine.request import Full, Held, Piece, Request
from vlm.errors import BadInput
from vlm.server.http.errors import ApiError, busy, log


class Ticket(Protocol):
    """A request that an engine took."""

    def cancel(self) -> None:
        """Nobody waits for it any more; from any thread, any number of times."""


class Answers(Protocol):
    """What is asked of an engine."""

    def submit(self, request: Request, heard: Callable[[Piece], None]) -> Ticket:
        """Take a request; `heard` is called with its pieces, in the engine's thread, until each choice has finished.

        Raises `BadInput` for what can never be answered, and `Full`.
        """

    def held(self) -> Held:
        """What there is now; from any thread."""


class Reply:
    """What the engine says of one request. `close` it when nobody reads any more.

    A reader that falls behind by more than `most` pieces loses the reply: the engine cannot wait for it without holding
    up everybody else, so its request is cancelled.
    """

    def __init__(self, choices: int = 1, most: int | None = None) -> None:
        """Made in the event loop, of a request of so many choices."""
        self._loop, self._come, self._most = asyncio.get_running_loop(), asyncio.Event(), most
        self._pieces: deque[Piece] = deque()
        self._left, self._late, self._closed = choices, False, False
        self._ticket: Ticket | None = None

    async def ask(self, engine: Answers, request: Request) -> None:
        """In a thread, since the engine looks at pictures before it takes a request. Raises `BadInput` for what can
        never be answered, and `ApiError` 429 where too many wait."""
        asking = self._loop.run_in_executor(None, engine.submit, request, self._heard)
        try:
            self._ticket = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_cancelled)
            raise
        except Full as error:
            raise busy(str(error), error.seconds) from None
        if self._closed:  # its reader fell behind before this
            self._ticket.cancel()

    def close(self) -> None:
        """The engine need not go on; any number of times."""
        if not self._closed:
            self._closed = True
            if self._ticket is not None:
                self._ticket.cancel()
            self._pieces.clear()

    async def pieces(self, patience: float | None = None) -> AsyncIterator[Piece | None]:
        """Until every choice has finished; `None` where none has come for `patience` seconds.

        Raises `ApiError` where the engine failed on the request or the reader fell behind, `BadInput` of the engine.
        """
        while self._left:
            while self._pieces:
                piece = self._pieces.popleft()
                if piece.error is not None:
                    raise _failure(piece.error)
                self._left -= piece.finish is not None
                yield piece
            if self._late:
                raise ApiError(503, "too_slow", f"the reader fell behind by more than {self._most} pieces of the reply")
            if not self._left:
                return
            self._come.clear()
            if not self._pieces and not self._late:
                # `asyncio.wait_for` of Python before 3.12 loses a cancellation that comes together with a piece.
                with anyio.move_on_after(patience) as waiting:
                    await self._come.wait()
                if waiting.cancelled_caught:
                    yield None

    def _heard(self, piece: Piece) -> None:
        """In the engine's thread."""
        if self._closed or self._late:
            return
        self._pieces.append(piece)
        self._late = self._most is not None and len(self._pieces) > self._most
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._drop if self._late else self._come.set)

    def _drop(self) -> None:
        self.close()
        self._come.set()


def _cancelled(asking: asyncio.Future[Ticket]) -> None:
    """Nobody waits for what was being taken."""
    if not asking.cancelled() and asking.exception() is None:
        asking.result().cancel()


def _failure(error: Exception) -> Exception:
    if isinstance(error, BadInput):
        return error
    log.error("a reply failed", exc_info=error)
    return ApiError(500, "internal", "the model failed on this request")

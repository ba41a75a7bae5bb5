"""Server-sent events, and readers that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.sse import EventSourceResponse, ServerSentEvent, format_sse_event
from starlette.types import Receive, Scope, Send

from vlm.errors import BadInput
from vlm.server.http.errors import ApiError, log, of_input

T = TypeVar("T")
SILENCE_SECONDS = 10.0
"""After which a comment is sent, so that nobody between takes a reply that has not begun for one that never will."""
SILENCE = ServerSentEvent(comment="waiting")
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(EventSourceResponse):
    """Events as they come. `ended` is called however that ends: all sent, the reader gone or too slow, a shutdown."""

    def __init__(self, events: AsyncIterator[ServerSentEvent], ended: Callable[[], Awaitable[None]]) -> None:
        super().__init__(_lines(events), headers=HEADERS)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except asyncio.TimeoutError:  # uvicorn closes the connection of an answer that is left off
            log.warning("a stream was left off: its reader took nothing for too long")
        finally:
            await self._ended()


async def _lines(events: AsyncIterator[ServerSentEvent]) -> AsyncIterator[bytes]:
    """What fails once an answer has begun is its last event."""
    try:
        async for event in events:
            yield _line(event)
    except BadInput as error:
        yield _line(ServerSentEvent(data={"error": of_input(error).body()}))
    except ApiError as error:
        yield _line(ServerSentEvent(data={"error": error.body()}))


def _line(event: ServerSentEvent) -> bytes:
    """As it is sent. JSON is written in ASCII, so that no text of a reply breaks a line."""
    text = event.raw_data if event.data is None else json.dumps(event.data, allow_nan=False)
    return format_sse_event(data_str=text, event=event.event, comment=event.comment)


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled when whoever asked is gone. The body has to be read before."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "gone", "whoever asked is gone")  # nobody but the log hears of it
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

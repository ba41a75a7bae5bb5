"""How much and how long: bodies are cut off at their limit as they stream in, silent callers are let go."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm.server.http.errors import ApiError, answer, busy
from vlm.server.http.settings import Limits

LINGER_SECONDS, LINGER_BYTES = 2.0, 2**22
"""How long, and for how much, the rest of a refused body is read: a connection that is closed with bytes unread is
reset, and the caller never sees the answer."""


class Bounded:
    """Holds each request to `Limits`, and their number."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits, self.running = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if not scope["path"].startswith("/v1/"):
            return await _Exchange(self.limits, scope, receive, send).run(self.app)
        if self.running >= self.limits.requests:
            error = busy(f"more than {self.limits.requests} requests at the same time")
            return await _Exchange(self.limits, scope, receive, send).refuse(error)
        self.running += 1
        try:
            await _Exchange(self.limits, scope, receive, send).run(self.app)
        finally:
            self.running -= 1


class _Exchange:
    """One request and its answer."""

    def __init__(self, limits: Limits, scope: Scope, receive: Receive, send: Send) -> None:
        self.limits, self.scope, self._receive, self._send = limits, scope, receive, send
        headers = Headers(scope=scope)
        self.files = headers.get("content-type", "").lower().startswith("multipart/form-data")
        self.most = limits.body_bytes if self.files else limits.json_bytes
        self.length = headers.get("content-length", "")
        self.whole = self.length in ("", "0") and "transfer-encoding" not in headers
        self.expects = "expect" in headers
        self.got, self.values, self.started = 0, 0, False
        self.until = time.monotonic() + limits.body_seconds

    async def run(self, app: ASGIApp) -> None:
        if self.length.isdecimal() and int(self.length[:20]) > self.most:
            return await self.refuse(self._too_large())
        try:
            await app(self.scope, self.receive, self.send)
        except ApiError as error:
            if self.started:
                raise
            await self.refuse(error)

    async def receive(self) -> Message:
        if self.whole:  # what is left to hear is that the caller has gone
            return await self._receive()
        patience = min(self.limits.silence_seconds, self.until - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, patience))
        except asyncio.TimeoutError:
            raise ApiError(408, "timeout", "the body did not arrive in time") from None
        if message["type"] == "http.request":
            self.got += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.got > self.most:
                raise self._too_large()
            if not self.files:
                self._count(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Passes it on; an answer to a body that is not all read yet ends the connection, after a while."""
        if message["type"] == "http.response.start":
            self.started = True
            if not self.whole:
                MutableHeaders(scope=message)["Connection"] = "close"
        elif not self.whole and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await asyncio.wait_for(self._send(message), self.limits.silence_seconds)

    async def refuse(self, error: ApiError) -> None:
        await answer(error, self.scope, self.receive, self.send)

    def _count(self, body: bytes) -> None:
        """Values of JSON by what stands before each: before it is parsed, since then it is in memory."""
        self.values += sum(body.count(sign) for sign in b",[{")
        if self.values > self.limits.json_values:
            raise ApiError(413, "too_large", f"expected JSON of at most {self.limits.json_values} values")

    def _too_large(self) -> ApiError:
        return ApiError(413, "too_large", f"expected a body of at most {self.most} bytes")

    async def _linger(self) -> None:
        until, left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
        while not self.whole and not self.expects and left > 0 and time.monotonic() < until:
            try:
                message = await asyncio.wait_for(self._receive(), until - time.monotonic())
            except asyncio.TimeoutError:
                return
            left -= len(message.get("body", b""))
            self.whole = message["type"] != "http.request" or not message.get("more_body", False)

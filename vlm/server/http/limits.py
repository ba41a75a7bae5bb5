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


PLAIN = ("/caption", "/vqa")
"""Of the chat server, outside `/v1`."""


class Bounded:
    """Holds each request to `Limits`, and their number."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.running = {False: 0, True: 0}
        """Requests, uploads."""
        self.held = 0
        """Bytes of JSON."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        exchange = _Exchange(self, scope, receive, send)
        upload = scope["method"] == "POST" and scope["path"].endswith("/items")
        counts = scope["path"].startswith("/v1/") or scope["path"] in PLAIN
        most = min(self.limits.requests, self.limits.uploads) if upload else self.limits.requests
        if counts and self.running[upload] >= most:
            return await exchange.refuse(busy(f"more than {most} requests at the same time"))
        self.running[upload] += counts
        try:
            await exchange.run(self.app)
        finally:
            self.running[upload] -= counts
            self.held -= exchange.held


class _Exchange:
    """One request and its answer."""

    def __init__(self, all: Bounded, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self.limits = all.limits
        self.scope, self._receive, self._send = scope, receive, send
        self._all, self.held = all, 0
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
                self._hold(message.get("body", b""))
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

    def _hold(self, body: bytes) -> None:
        """Bytes of JSON for all requests together, and values by what stands before each: before it is parsed, since
        then it is in memory."""
        if self._all.held + len(body) > self.limits.bodies_bytes:
            raise busy("the requests that are being read take all the memory there is for them")
        self.held += len(body)
        self._all.held += len(body)
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

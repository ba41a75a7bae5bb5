"""Connections that are let go when no request comes over them: uvicorn waits for a header without end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from vlm.server.http.browsers import HEARTBEAT
from vlm.server.http.limits import LINGER_SECONDS


def protocol(header_seconds: float, most: int) -> type[H11Protocol]:
    """An HTTP/1.1 protocol with at most `most` connections, each with a deadline for a whole request header."""

    class Connection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _over = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
                return
            self._watch()

        def data_received(self, data: bytes) -> None:
            if not self._over:
                super().data_received(data)
                self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            body = json.dumps({"error": {"code": "bad_request", "message": msg}}).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                head = h11.Response(status_code=400, headers=[*headers, ("connection", "close")], reason=b"Bad Request")
                for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            # Closed with bytes unread, the connection would be reset and the answer lost.
            self._unwatch()
            self._over, self._deadline = True, self.loop.call_later(LINGER_SECONDS, self.transport.close)
            self.transport.write_eof()

        def shutdown(self) -> None:
            if self._over or self._beats():
                self.transport.close()
            else:
                super().shutdown()

        def _beats(self) -> bool:
            """An open page's heartbeat is no request that a shutdown waits for."""
            cycle = self.cycle
            return cycle is not None and not cycle.response_complete and cycle.scope["path"].startswith(HEARTBEAT)

        def _watch(self) -> None:
            """The time runs while no request is being answered, from its beginning and not from the last byte."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._unwatch()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(header_seconds, self.transport.close)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Connection

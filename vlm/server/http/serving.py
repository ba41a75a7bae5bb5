"""A server from its start to its end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from vlm.errors import BadInput, VlmError
from vlm.server.http.app import Failed
from vlm.server.http.auth import Keys, is_loopback
from vlm.server.http.connections import protocol
from vlm.server.http.settings import Limits, ServerSettings

SWITCH_SECONDS = 0.001
"""After which a thread of Python lets another on: a search's few steps wait behind those of uploads."""
GRACE_SECONDS = 60
"""What a shutdown waits for requests that were accepted."""


def check(settings: ServerSettings, host: str, keys: Keys | None) -> None:
    """Raises `BadInput` without keys on an address that others reach, and for a folder of media that is missing."""
    if keys is None and not is_loopback(host):
        raise BadInput(
            f"host {host}: expected keys (--keys FILE) on an address that others reach; 127.0.0.1 needs none"
        )
    for folder in settings.media:
        if not folder.is_dir():
            raise BadInput(f"{folder}: expected a folder of media, got none")


def run(
    app: Callable[[Failed], ASGIApp],
    limits: Limits,
    host: str,
    port: int,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted. Raises what loading raised, and `VlmError` for a
    port that is taken."""
    _share_heaps()
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(format="vlm: %(message)s", level=logging.WARNING)
    troubles: list[BaseException] = []

    def failed(error: BaseException) -> None:
        troubles.append(error)
        server.should_exit = True

    server = Server(configured(app(failed), limits, host, port), say)
    try:
        asyncio.run(server.serve())
    except SystemExit:  # uvicorn has logged why
        raise VlmError(f"{host}:{port}: cannot listen there") from None
    if troubles:
        raise troubles[0]


def _share_heaps() -> None:
    """glibc gives every thread a heap of its own and hands back little of them: two for all the threads of a server."""
    arena_max = -8
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(arena_max, 2)


def configured(app: ASGIApp, limits: Limits, host: str, port: int) -> uvicorn.Config:
    """uvicorn's side of `limits`."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol(limits.header_seconds, limits.connections),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, int(limits.header_seconds)),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class Server(uvicorn.Server):
    """Says where it listens, and ends as a command that is done."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None] = lambda line: None) -> None:
        super().__init__(config)
        self._say = say
        self.address = ""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for sock in server.sockets:
                host, port = sock.getsockname()[:2]
                self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
                self._say(f"serving on {self.address}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # nobody else hears of signals
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

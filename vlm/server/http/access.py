"""Who asked for what, a line of JSON each: every request (access), and those that change something (audit).

A key is named by the beginning of its hash, so that lines of one key are found together and no line lets anybody in.
Files may be moved away while they are written to, as logrotate does.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm.errors import BadInput
from vlm.server.http.auth import PAGE, needed
from vlm.server.http.remarks import REMARKS, remark


class Logs:
    """The files there are."""

    def __init__(self, access: Path | None, audit: Path | None) -> None:
        """Raises `BadInput` for one that cannot be written."""
        self._access, self._audit = _lines(access), _lines(audit)

    def __bool__(self) -> bool:
        return bool(self._access or self._audit)

    def access(self, **about: Any) -> None:
        _write(self._access, about)

    def audit(self, **about: Any) -> None:
        scope: Scope = {REMARKS: {}}
        remark(scope, **about)
        _write(self._audit, scope[REMARKS])


class Logged:
    """Writes a line for each request once it is answered."""

    def __init__(self, app: ASGIApp, logs: Logs, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self._logs, self._clock = app, logs, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._logs:
            return await self.app(scope, receive, send)
        scope = {**scope, REMARKS: {}}
        began, status, size = self._clock(), 0, 0

        async def noted(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            line = {
                "client": (scope.get("client") or (None,))[0],
                "method": scope["method"],
                "path": (scope.get("raw_path") or scope["path"].encode()).decode("latin-1"),
                "status": status or 500,
                "bytes": size,
                "ms": round((self._clock() - began) * 1000, 1),
                **scope[REMARKS],
            }
            self._logs.access(**line)
            path: str = scope["path"]
            login = path.rstrip("/") == f"{PAGE}/login"
            if needed(scope["method"], path) == "write" and (login or not path.startswith(PAGE)):
                self._logs.audit(**line)


def _write(file: logging.Logger | None, line: dict[str, Any]) -> None:
    if file is not None:
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        file.info(json.dumps({"at": at, **line}))


def _lines(path: Path | None) -> logging.Logger | None:
    if path is None:
        return None
    try:
        handler = WatchedFileHandler(path, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: expected a file that can be written, got: {error}") from None
    handler.setFormatter(logging.Formatter("%(message)s"))
    found = logging.Logger(str(path))
    found.addHandler(handler)
    return found

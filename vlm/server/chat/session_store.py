"""Sessions of a server's callers: files below its own folder, a folder a key. It reads no others."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vlm.conversation.messages import Conversation
from vlm.engine.sessions.conversation import CHANNELS, as_messages
from vlm.engine.sessions.sessions import Session, Sessions
from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.server.chat.session_schemas import SaidMessage, SessionAnswer, SessionConversation
from vlm.server.chat.settings import ChatLimits
from vlm.server.http.errors import ApiError, log

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SUFFIX = ".safetensors"
EVERYONE = "everyone"
"""Where there are no keys; a key's folder is its fingerprint."""


class SessionStore:
    """Made in the event loop. One file is read or written at a time: it may take as much memory as the caches."""

    def __init__(self, folder: Path, limits: ChatLimits, sessions: Sessions) -> None:
        """Files that a kill left half written go. Raises `BadInput` for a folder that cannot be one."""
        self._folder, self._limits, self._sessions = folder, limits, sessions
        self._lock = asyncio.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for half in folder.glob(f"*/.*{SUFFIX}"):
                half.unlink()
        except OSError as error:
            raise BadInput(f"{folder}: expected a folder for sessions, got: {error}") from None

    async def save(self, client: str, name: str, said: Conversation) -> SessionAnswer:
        """Write what was read of a conversation, in the place of what has this name. Raises `ApiError` 409 for one too
        many, 507 where there is no room for it; then nothing is changed."""
        return await self._alone(self._save, client, name, said)

    async def listed(self, client: str) -> list[SessionAnswer]:
        """By name."""
        return await self._alone(self._listed, client)

    async def conversation(self, client: str, name: str) -> SessionConversation:
        """Raises `ApiError` 404, and 409 for a file that was damaged."""
        return await self._alone(self._conversation, client, name)

    async def restore(self, client: str, name: str) -> SessionAnswer:
        """Let the engine remember it. Raises `ApiError` 404, and 409 where it is of another model or machine."""
        return await self._alone(self._restore, client, name)

    async def delete(self, client: str, name: str) -> None:
        """Raises `ApiError` 404."""
        await self._alone(self._delete, client, name)

    def path(self, client: str, name: str) -> Path:
        """Raises `ApiError` 422 for what is no name."""
        if not NAME.fullmatch(name):
            expected = "expected a name of up to 64 letters, digits, - and _, a letter or digit first"
            raise ApiError(422, "invalid", f"{expected}; got {name[:80]!r}")
        return self._folder / (client or EVERYONE) / f"{name}{SUFFIX}"

    async def _alone(self, work: Callable[..., T], client: str, *given: Any) -> T:
        async with self._lock:
            return await asyncio.to_thread(work, client, *given)

    def _save(self, client: str, name: str, said: Conversation) -> SessionAnswer:
        path = self.path(client, name)
        there = {file: file.stat().st_size for file in self._folder.glob(f"*/*{SUFFIX}")}
        if path not in there and sum(file.parent == path.parent for file in there) >= self._limits.sessions:
            raise ApiError(409, "too_many", f"expected at most {self._limits.sessions} sessions")
        packed = self._sessions.packed(said, client)
        held = sum(size for file, size in there.items() if file != path) + packed.nbytes
        if held > (most := self._limits.sessions_bytes):
            raise ApiError(507, "storage", f"expected sessions of at most {most} bytes together, got {held}")
        try:
            packed.write(path)
        except OSError as error:
            log.error("session %s: %s", name, error)
            message = "the server's disk is full or cannot be written; nothing was changed"
            raise ApiError(507, "storage", message) from None
        return self._told(path)

    def _listed(self, client: str) -> list[SessionAnswer]:
        folder = self._folder / (client or EVERYONE)
        names = sorted(file.stem for file in folder.glob(f"*{SUFFIX}") if NAME.fullmatch(file.stem))
        return [self._told(folder / f"{name}{SUFFIX}") for name in names]

    def _told(self, path: Path) -> SessionAnswer:
        status = path.stat()
        told: dict[str, Any]
        try:
            told = self._sessions.about(path).model_dump()
        except BadInput as error:
            told = {"error": _line(error, path)}
        return SessionAnswer(name=path.stem, bytes=status.st_size, saved=int(status.st_mtime), **told)

    def _opened(self, client: str, name: str) -> Session:
        path = self.path(client, name)
        try:
            return self._sessions.opened(path)
        except FileNotFoundError:
            raise _none(name) from None
        except BadInput as error:
            raise ApiError(409, "unusable", _line(error, path)) from None

    def _conversation(self, client: str, name: str) -> SessionConversation:
        session = self._opened(client, name)
        left = self._limits.json_bytes

        def part(item: Media, kind: str) -> dict[str, Any]:
            nonlocal left
            address = item.source
            if not item.is_clip and (left := left - CHANNELS * item.frames[0].width * item.frames[0].height) >= 0:
                address = _png(item)
            kind = "video_url" if item.is_clip else "image_url"
            return {"type": kind, kind: {"url": address}}

        messages = [SaidMessage.model_validate(message) for message in as_messages(session.said, part)]
        told = self._told(session.path).model_dump()
        return SessionConversation(**told, model=session.model, messages=messages)

    def _restore(self, client: str, name: str) -> SessionAnswer:
        session = self._opened(client, name)
        try:
            self._sessions.restore(session, client)
        except BadInput as error:
            raise ApiError(409, "unusable", _line(error, session.path)) from None
        return self._told(session.path)

    def _delete(self, client: str, name: str) -> None:
        try:
            self.path(client, name).unlink()
        except FileNotFoundError:
            raise _none(name) from None


def _png(item: Media) -> str:
    out = io.BytesIO()
    item.frames[0].save(out, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _none(name: str) -> ApiError:
    return ApiError(404, "session_not_found", f"there is no session {name}")


def _line(error: BadInput, path: Path) -> str:
    """Where the server keeps it is nobody's business."""
    return str(error).replace(str(path), path.stem)

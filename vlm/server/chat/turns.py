"""A conversation as the page keeps it, and the request that it is to the API, with uploaded files for addresses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from vlm.server.chat.completion_schemas import ChatRequest
from vlm.server.chat.completions import wanted
from vlm.server.chat.service import ChatService, Wanted
from vlm.server.http.errors import ApiError
from vlm.server.http.sources import ClipFile, Source


@dataclass
class Turn:
    """What was typed, and what was said to it."""

    text: str
    files: list[Path] = field(default_factory=list)
    reply: str = ""
    done: bool = False
    """Whether there is a reply, though it may be empty."""

    @property
    def empty(self) -> bool:
        return not (self.files or self.text.strip())


@dataclass
class Talk:
    """What one tab of a browser has: kept here, so that nothing a browser sends is taken for what was said before."""

    turns: list[Turn] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        return [file for turn in self.turns for file in turn.files]


def size(files: Iterable[Path], limit: int) -> int:
    """Bytes of all, which a request to the API would carry; they are kept for another while. Raises `ApiError` for more
    than `limit`, or a file that is not kept any more."""
    total = 0
    for file in files:
        try:
            os.utime(file)  # Gradio removes those that nobody touched for `pages.KEPT_SECONDS`
            total += file.stat().st_size
        except OSError:
            raise ApiError(404, "path_not_found", f"{file.name}: is not kept any more; start anew") from None
    if total > limit:
        most = f"expected pictures and clips of at most {limit} bytes in a conversation"
        raise ApiError(413, "too_large", f"{most}, got {total}")
    return total


async def asked(
    service: ChatService, talk: Talk, folder: Path, client: str, *, decides: bool = False, **fields: Any
) -> Wanted:
    """The request of all turns, with files below `folder` and these fields of `ChatRequest`; `decides` leaves out the
    last text. Raises `ApiError` and pydantic's error as the API would."""
    sources = [await _source(service, file, folder) for file in talk.files]
    left = iter(sources)
    messages: list[dict[str, Any]] = []
    for turn in talk.turns:
        parts = [_part(next(left)) for _ in turn.files] + ([{"type": "text", "text": turn.text}] if turn.text else [])
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": turn.reply}]
    found = wanted(service, ChatRequest.model_validate({"messages": messages[:-1], **fields}))
    *before, last = found.messages
    if decides:
        last = {**last, "content": [part for part in last["content"] if part["type"] != "text"]}
    media = [replace(named, address=source) for named, source in zip(found.media, sources, strict=True)]
    return replace(found, messages=[*before, last], media=media, client=client)


async def _source(service: ChatService, file: Path, folder: Path) -> Source:
    try:
        found = await service.opening.sources.path(str(file), folder)
    except ApiError as error:
        raise ApiError(error.status_code, error.code, f"{file.name}: {error.message}") from None
    return replace(found, name=file.name)


def _part(source: Source) -> dict[str, Any]:
    kind = "video_url" if isinstance(source, ClipFile) else "image_url"
    return {"type": kind, kind: {"url": source.name}}


def drawn(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """As a `gr.Chatbot` shows them: as they were written, since models mark regions with tags."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        said = [{"type": "text", "text": escape(turn.text)}] if turn.text.strip() else []
        messages.append({"role": "user", "content": [*({"path": str(file)} for file in turn.files), *said]})
        if turn.reply or turn.done:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": escape(turn.reply)}]})
    return messages

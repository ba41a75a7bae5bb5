"""A conversation as OpenAI's chat API takes it: pictures as `data:` URLs, a clip as its frames with their times."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

from vlm.conversation.messages import Conversation, Message
from vlm.media.open import Media

Part = dict[str, Any]


def png(picture: Image.Image) -> str:
    """The same pixels as base64 text: nothing is lost on the way."""
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The value of a request's `messages`. A message of words alone is a text, which every server takes."""
    media = iter(conversation.media)
    return [{"role": message.role, "content": _content(message, media)} for message in conversation.messages]


def _content(message: Message, media: Iterator[Media]) -> str | list[Part]:
    if all(part.kind == "text" for part in message.parts):
        return message.text
    parts: list[Part] = []
    for part in message.parts:
        parts += [_text(part.text)] if part.kind == "text" else _shown(next(media))
    return parts


def _shown(item: Media) -> list[Part]:
    says = item.is_clip and item.timed
    times = item.times if says else (None,) * len(item.frames)
    parts: list[Part] = []
    for frame, time in zip(item.frames, times, strict=True):
        parts += [] if time is None else [_text(f"Frame at {time:.1f} seconds:")]
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(frame)}"}})
    return parts


def _text(text: str) -> Part:
    return {"type": "text", "text": text}

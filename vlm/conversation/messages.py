"""Conversations: messages in OpenAI's shape or with our `<image>` placeholders, as one kind of parts.

A message has a `role` and a `content`: a text, in which `<image>` stands for a picture, or a list of parts -
`{"type": "text", "text": ...}`, `{"type": "image_url", "image_url": {"url": ...}}`, `{"type": "image", "image": ...}`,
`{"type": "video", "video": ...}`. Pictures and clips that no part brings along are taken from a list, in their order.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlm.conversation.texts import check_characters
from vlm.errors import BadInput

IMAGE, VIDEO = "<image>", "<video>"
MARKS = {IMAGE: "image", VIDEO: "video"}
ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system",
         "<|User|>": "user", "<|Assistant|>": "assistant"}  # fmt: skip
"""As messages name them, DeepSeek-VL2's own names among them."""
KINDS = {
    "text": "text", "input_text": "text", "output_text": "text", "image": "image", "image_url": "image",
    "input_image": "image", "video": "video", "video_url": "video", "input_video": "video",
}  # fmt: skip
"""Types of parts, and what each is."""
MAX_DATA_BYTES = 256 * 2**20
"""Of a picture inside a `data:` address."""

Messages = Sequence[Mapping[str, Any]]


class Part(NamedTuple):
    """A piece of a message."""

    kind: str
    """`text`, `image` or `video`."""
    text: str = ""


class Message(NamedTuple):
    role: str
    """`user`, `assistant` or `system`."""
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Its texts, without what stands between them."""
        return "".join(part.text for part in self.parts)


class Conversation(NamedTuple):
    messages: tuple[Message, ...]
    media: tuple[Any, ...]
    """The pictures and clips of all messages in reading order, as they were given: a path, a URL, bytes ..."""


def read_messages(
    messages: Messages, media: Sequence[Any] | None = None, placeholders: Mapping[str, str] | None = None
) -> Conversation:
    """The messages as parts, and what they show.

    `placeholders` are the texts that stand for pictures and clips, by default `<image>` alone. Raises `BadInput` for
    what is no conversation, and where places and `media` differ in number.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        raise BadInput(f"messages: expected a list of messages, got {_name(messages)}")
    placeholders = {IMAGE: "image"} if placeholders is None else placeholders
    given = list(media or ())
    read: list[Message] = []
    places: list[Any] = []
    for number, message in enumerate(messages):
        where = f"message {number + 1}"
        if not isinstance(message, Mapping):
            raise BadInput(f"{where}: expected an object with a role and a content, got {_name(message)}")
        role = ROLES.get(str(message.get("role")))
        if role is None:
            raise BadInput(f"{where}: expected role user, assistant or system, got {message.get('role')!r}")
        pieces = _pieces(message.get("content"), where, placeholders)
        for part, _ in pieces:
            check_characters(part.text, where)
        read.append(Message(role, tuple(part for part, _ in pieces)))
        places += [own for part, own in pieces if part.kind != "text"]
    if sum(own is None for own in places) != len(given):
        wanted = sum(own is None for own in places)
        raise BadInput(f"messages: expected places for {len(given)} pictures and clips, got {wanted}")
    rest = iter(given)
    return Conversation(tuple(read), tuple(next(rest) if own is None else own for own in places))


def question(text: str, clip: bool = False) -> list[Message]:
    """A user's words after one picture or clip."""
    return [Message("user", (Part("video" if clip else "image"), Part("text", text)))]


def _pieces(content: Any, where: str, placeholders: Mapping[str, str]) -> list[tuple[Part, Any]]:
    """Parts, each with the picture or clip it brings along."""
    if isinstance(content, str):
        pieces = re.split(f"({'|'.join(map(re.escape, placeholders))})", content)
        parts = [
            Part(placeholders[piece]) if piece in placeholders else Part("text", piece) for piece in pieces if piece
        ]
        return [(part, None) for part in parts]
    if content is None:
        return []
    if not isinstance(content, list | tuple) or not all(isinstance(part, Mapping) for part in content):
        raise BadInput(f"{where}: expected a text or a list of parts as content, got {_name(content)}")
    return [_piece(part, where, placeholders) for part in content]


def _piece(part: Mapping[str, Any], where: str, placeholders: Mapping[str, str]) -> tuple[Part, Any]:
    kind = KINDS.get(str(part.get("type")))
    if kind is None:
        raise BadInput(f"{where}: expected parts of type text, image or video, got {part.get('type')!r}")
    if kind != "text":
        own = next((part[key] for key in (str(part["type"]), f"{kind}_url", kind) if part.get(key) is not None), None)
        own = own.get("url") if isinstance(own, Mapping) else own
        return Part(kind), from_address(own, where) if isinstance(own, str) else own
    text = part.get("text", "")
    if not isinstance(text, str):
        raise BadInput(f"{where}: expected a text in a part of type text, got {_name(text)}")
    for mark, shown in placeholders.items():
        if mark in text:
            seen = "picture" if shown == "image" else "clip"
            raise BadInput(f"{where}: expected a part of type {shown} where a {seen} stands, got {mark} in a text")
    return (Part("text", text), None)


def from_address(address: str, where: str) -> str | bytes:
    """The bytes of a `data:` address; other addresses and paths as they are. Raises `BadInput` for broken ones."""
    if not address.startswith("data:"):
        return address
    head, comma, content = address.partition(",")
    if not comma or not head.endswith(";base64"):
        raise BadInput(f"{where}: expected data:...;base64,... as address of a picture, got {address[:40]!r}")
    if len(content) * 3 // 4 > MAX_DATA_BYTES:
        raise BadInput(f"{where}: expected a picture of at most {MAX_DATA_BYTES} bytes, got {len(content) * 3 // 4}")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"{where}: a picture's base64 cannot be read: {error}") from None


def _name(value: Any) -> str:
    return "an empty list" if isinstance(value, list | tuple) and not value else type(value).__name__

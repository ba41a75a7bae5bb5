"""Conversations: the pieces of a message, and the chat template that a published folder brings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError

from vlm.errors import BadInput
from vlm.files import read_json

IMAGE, VIDEO = "<image>", "<video>"
ROLES = ("user", "assistant", "system")


class Part(NamedTuple):
    """A piece of a message."""

    kind: str
    """`text`, `image` or `video`."""
    text: str = ""


def role_of(message: Mapping[str, Any], where: str) -> str:
    """Raises `BadInput` for another role than the three."""
    role = message.get("role")
    if role not in ROLES:
        raise BadInput(f"{where}: expected role user, assistant or system, got {role!r}")
    return role


def parts_of(message: Mapping[str, Any], where: str, marks: Mapping[str, str] | None = None) -> list[Part]:
    """The pieces of a message, whose content is a text with `<image>` where pictures stand, or a list of pieces.

    `marks` are such marks and the kinds they stand for. Raises `BadInput` for what is neither.
    """
    marks = {IMAGE: "image"} if marks is None else marks
    content = message.get("content")
    if isinstance(content, str):
        pieces = re.split(f"({'|'.join(map(re.escape, marks))})", content)
        return [Part(marks[piece]) if piece in marks else Part("text", piece) for piece in pieces if piece]
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise BadInput(f"{where}: expected a text or a list of parts as content, got {type(content).__name__}")
    parts = [Part(str(part.get("type")), str(part.get("text", ""))) for part in content]
    for part in parts:
        if part.kind not in ("text", "image", "video"):
            raise BadInput(f"{where}: expected parts of type text, image or video, got {part.kind!r}")
        for mark, kind in marks.items():
            if mark in part.text:
                seen = "picture" if kind == "image" else "clip"
                raise BadInput(f"{where}: expected a part of type {kind} where a {seen} stands, got {mark} in a text")
    return parts


def read_template(folder: Path) -> str:
    """The chat template of a folder: a file of its own, or a key of the processor's. Raises `BadInput` without one."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        found = read_json(folder / name).get("chat_template") if (folder / name).is_file() else None
        if isinstance(found, str):
            return found
    raise BadInput(f"{folder}: expected a chat template (chat_template.jinja or chat_template.json), found none")


def render(template: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as its template has it, by transformers' renderer, which runs no code but the template's own.

    Contents are lists of parts. Where the last message is not the assistant's its reply begins, else that message goes
    on. Raises `BadInput` where the template refuses.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    goes_on = bool(messages) and messages[-1]["role"] == "assistant"
    try:
        rendered: Any = render_jinja_template(
            [[dict(message) for message in messages]],
            chat_template=template,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
    except (TemplateError, ValueError) as error:
        raise BadInput(f"messages: the chat template cannot be filled: {' '.join(str(error).split())}") from None
    texts, _ = rendered
    return texts[0]

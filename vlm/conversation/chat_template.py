"""The chat template that a published folder brings, filled by transformers' renderer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from vlm.errors import BadInput
from vlm.files import read_json


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


def render(template: str, messages: Sequence[Mapping[str, Any]], specials: Mapping[str, str] | None = None) -> str:
    """A conversation as its template has it, by transformers' renderer, which runs no code but the template's own.

    Contents are what the template expects, texts or lists of parts; `specials` are tokens it may name. Where the last
    message is not the assistant's its reply begins, else that message goes on. Raises `BadInput` where the template
    refuses.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    named: dict[str, Any] = dict(specials or {})
    goes_on = bool(messages) and messages[-1]["role"] == "assistant"
    try:
        rendered: Any = render_jinja_template(
            [[dict(message) for message in messages]],
            chat_template=template,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            **named,
        )
    except (TemplateError, ValueError) as error:
        raise BadInput(f"messages: the chat template cannot be filled: {' '.join(str(error).split())}") from None
    texts, _ = rendered
    return texts[0]

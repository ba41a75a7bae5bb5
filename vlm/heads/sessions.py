"""Conversations in files: what was said and shown, and what was read of it, for another process to go on with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vlm.conversation.messages import Conversation, Messages, read_messages
from vlm.engine.sessions.conversation import as_messages
from vlm.engine.sessions.sessions import About
from vlm.errors import BadInput
from vlm.heads.writer import Writer
from vlm.media.open import MediaSource
from vlm.models.processor import Open

NEXT_TOKENS = 256
"""Room for the next turn of a conversation that is gone on with; more is made where it is needed."""


class ModelSessions:
    """Of one model that writes. Trust a file as you do a model's: what it says was read is believed."""

    def __init__(self, writer: Writer, name: str, open_one: Open):
        self._writer, self._name, self._open = writer, name, open_one

    def save(self, path: str | Path, messages: Messages, images: Sequence[MediaSource] | None = None) -> About:
        """Write a conversation, its pictures and clips with it as they were decoded; what was there stays until it is
        written. Raises `BadInput` as `Model.chat` does, and `OSError` where it cannot be written."""
        processor = self._writer.processor
        messages_read, sources = read_messages(messages, images, processor.placeholders)
        said = Conversation(messages_read, tuple(self._open(one) for one in sources))
        with self._writer.replies.sessions(1, self._name) as sessions:
            packed = sessions.packed(said)
        packed.write(Path(path).expanduser())
        return packed.about

    def restore(self, path: str | Path, *, say: Callable[[str], None] = warnings.warn) -> list[dict[str, Any]]:
        """The messages of a file, open pictures and clips in them; the next reply to them costs what it would have.

        Where this machine's products have other last digits `say` is told, and it is read anew. Raises `BadInput` for
        what is no such file, damaged, or of another model.
        """
        found, replies = Path(path).expanduser(), self._writer.replies
        try:
            with replies.sessions(1, self._name) as sessions:
                session = sessions.opened(found)
        except FileNotFoundError:
            raise BadInput(f"{found}: no such file") from None
        room = min(session.about.tokens + NEXT_TOKENS, self._writer.context)
        with replies.sessions(room, self._name) as sessions:
            sessions.refuse_other_model(session)
            if (other := sessions.other_machine(session)) is None:
                sessions.restore(session)
            else:
                say(f"{found}: is read anew, since products have other last digits here: {other}")
        return as_messages(session.said, lambda item, kind: {"type": kind, kind: item})

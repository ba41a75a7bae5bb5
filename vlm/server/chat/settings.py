"""What a chat server is started with."""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from vlm.server.http.settings import MB, Limits, ServerSettings


class ChatLimits(Limits):
    """What one caller may ask for, beside what every server bounds."""

    body_bytes: PositiveInt = 64 * MB
    json_bytes: PositiveInt = 64 * MB
    requests: PositiveInt = 1024
    """More than an engine takes, which says by itself when it has too many."""
    characters: PositiveInt = 1_000_000
    """Of all texts of a conversation: more are not made tokens of to find that they are too many."""
    media: PositiveInt = 64
    """Pictures and clips of a conversation."""
    frames: PositiveInt = 64
    """Of a clip."""
    choices: PositiveInt = 16
    sessions: PositiveInt = 100
    """That a key keeps."""
    sessions_bytes: PositiveInt = 4096 * MB
    """Of those of all keys."""
    reply_seconds: PositiveFloat = 600.0
    """A whole reply, from when it was asked for; it ends then with what there is."""
    media_seconds: PositiveFloat = 60.0
    """What pictures and clips may wait for memory to be decoded in."""
    pieces: PositiveInt = 4096
    """Of a streamed reply that its reader has not taken; with more, the request is cancelled."""


class ChatSettings(ServerSettings):
    max_tokens: PositiveInt = 256
    """Of a reply that says nothing of its length, or what the model still reads if that is less."""
    sessions: Path | None = None
    """Where conversations are kept that callers save; without, none are."""
    limits: ChatLimits = ChatLimits()

"""What an engine may use, and how much it does at a time."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from vlm.config import Config
from vlm.engine.chunks import CHUNK

MB = 2**20


class EngineSettings(Config):
    """Sizes in bytes."""

    memory_bytes: PositiveInt = 2048 * MB
    """Of keys and values: of the running requests and, as far as they leave room, of prompts read before."""
    prompts_bytes: NonNegativeInt = 512 * MB
    """Of that for prompts read before at most."""
    pictures_bytes: NonNegativeInt = 256 * MB
    """Of visual tokens kept for pictures that are shown again."""
    running: PositiveInt = 16
    """Replies that are written at the same time."""
    waiting: PositiveInt = 256
    """Requests that wait for that; beyond, `Full` is raised."""
    chunk: PositiveInt = CHUNK
    """Tokens of a prompt that are read together at most. Another size gives other last digits."""
    tokens: PositiveInt = 2 * CHUNK
    """Of prompts, read between one token of the running replies and the next."""
    visual: PositiveInt = 2048
    """Visual tokens of pictures that are encoded between the two; one picture is, whatever it has."""
    sizes: tuple[PositiveInt, ...] | None = None
    """Numbers of rows of a decoding step, ascending; by default all that agree on this machine (`vlm.engine.rows`)."""
    guesses: NonNegativeInt = 4
    """Tokens of a reply that are guessed a step at most: in rows that would be filler, and in more where that pays."""
    drafters: tuple[Literal["lookup", "heads", "draft"], ...] = ("lookup", "heads", "draft")
    """Who may guess, of those that there are: what stood behind the same tokens before, the model's own multi-token
    heads, a draft model."""
    keep_prompts: bool = True
    """Whether what was read of a prompt is kept for those that begin alike."""

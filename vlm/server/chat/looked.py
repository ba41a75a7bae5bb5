"""What the model was shown, as the page tells it: a line for each picture and clip, and small copies of the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from vlm.engine.request import Finish, Usage
from vlm.media.open import Media
from vlm.models.processor import Processor, Prompt
from vlm.server.chat.completion_schemas import MediaUsage
from vlm.server.chat.telling import seen
from vlm.server.http.pages import plain

SIDE = 256
"""Pixels of a small copy."""
MOST = 128
"""Frames that are drawn; the others are told."""
ENDS: dict[Finish, str] = {"length": ", cut at the most tokens it may have", "deadline": ", cut at the deadline"}


@dataclass(frozen=True)
class Looked:
    lines: str
    """Markdown."""
    frames: list[tuple[Image.Image, str]]
    """Each with what it is."""


def looked(processor: Processor, prompt: Prompt, media: Sequence[Media]) -> Looked:
    """Of the media of a request."""
    told = seen(processor, prompt, media)
    if not told:
        return Looked("Text alone.", [])
    lines = [_line(number, item.source, one) for number, (item, one) in enumerate(zip(media, told, strict=True), 1)]
    frames = [
        (frame, f"{number}: {one.times[place]:.2f} s" if one.times else f"{number}")
        for number, (item, one) in enumerate(zip(media, told, strict=True), 1)
        for place, frame in enumerate(item.frames)
    ]
    if len(frames) > MOST:
        lines.append(f"\n{len(frames)} frames, of which the first {MOST} are here.")
    return Looked("\n".join(lines), [(_small(frame), text) for frame, text in frames[:MOST]])


def _line(number: int, name: str, one: MediaUsage) -> str:
    size = f"{one.size[0]} x {one.size[1]} pixels"
    what = f"a picture of {size}" if one.kind == "image" else f"{one.frames} frames of {size}"
    times = f", at {', '.join(f'{time:.2f}' for time in one.times)} s" if one.times else ""
    notes = "".join(f"\n   - {plain(note)}" for note in one.notes)
    return f"{number}. {plain(name)}: {what}, {one.image_tokens} image tokens{times}{notes}"


def _small(frame: Image.Image) -> Image.Image:
    copy = frame.copy()
    copy.thumbnail((SIDE, SIDE))
    return copy


def cost(usage: Usage, finish: Finish) -> str:
    """A line."""
    read = f"{usage.prompt} tokens read, {usage.image} of them of pictures and clips, {usage.cached} known from before"
    return f"{read}; {usage.reply} written{ENDS.get(finish, '')}."

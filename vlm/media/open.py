"""What users hand to a head - a path, a URL, a picture, an array, a clip - as frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.media.images import load_image
from vlm.media.kinds import is_video
from vlm.media.urls import fetch_url, is_url
from vlm.media.video.sampling import Clip, load_clip
from vlm.media.video.sampling.base import Sampler


@dataclass(frozen=True)
class Media:
    """A picture (one frame, no times) or a clip (frames in order, each with its time in seconds)."""

    frames: tuple[Image.Image, ...]
    times: tuple[float, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()
    duration: float | None = None
    """Of a clip's whole video in seconds, where it is known."""
    timed: bool = True
    """Whether `times` are seconds; frames that come as pictures are only in order."""

    @property
    def is_clip(self) -> bool:
        return bool(self.times)


MediaSource: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Clip | Media


@dataclass(frozen=True)
class Skipped:
    """An input that could not be used, and why."""

    input: str
    reason: str


def open_media(source: MediaSource, sampling: Sampler | None = None) -> Media:
    """One input as `Media`; of a clip the frames that `sampling` picks, 4 spread evenly by default.

    A URL is fetched only from public addresses. Raises `BadInput` in one line.
    """
    if isinstance(source, Media):
        return source
    if isinstance(source, Clip):
        return _of_clip(source, source.source)
    notes: list[str] = []
    if isinstance(source, str) and is_url(source):
        return Media((load_image(fetch_url(source), notes=notes),), source=source, notes=tuple(notes))
    if isinstance(source, str | Path) and is_video(source):
        return _of_clip(load_clip(source, sampling=sampling), str(source))
    image = load_image(source, notes=notes)
    name = str(source) if isinstance(source, str | Path) else type(source).__name__
    return Media((image,), source=name, notes=tuple(notes))


def open_all(inputs: Sequence[MediaSource], sampling: Sampler | None = None) -> list[Media]:
    """Each input, each distinct one opened once. Raises `BadInput` for a single input in the place of a list."""
    single = isinstance(inputs, np.ndarray) and inputs.ndim < 4
    if single or isinstance(inputs, str | bytes | Path | Image.Image | Clip | Media | Mapping):
        raise BadInput(f"inputs: expected a list of pictures and clips, got a single {type(inputs).__name__}")
    open_one = opener(sampling)
    return [open_one(item) for item in inputs]


def _of_clip(clip: Clip, name: str) -> Media:
    return Media(tuple(clip.frames), tuple(clip.times), name, clip.notes, clip.duration)


def opener(sampling: Sampler | None = None) -> Callable[[MediaSource], Media]:
    """What opens inputs and each distinct one once: a path, a URL or bytes by their value, others by what they are."""
    opened: dict[object, tuple[MediaSource, Media]] = {}  # the source is kept, so that no other takes its identity

    def open_one(source: MediaSource) -> Media:
        key = source if isinstance(source, str | Path | bytes) else id(source)
        if key not in opened:
            opened[key] = source, open_media(source, sampling)
        return opened[key][1]

    return open_one

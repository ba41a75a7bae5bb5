"""What users hand to a head - a path, a URL, a picture, an array, a clip - as frames."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.media.images import load_image
from vlm.media.kinds import HEAD_BYTES, is_video, kind_of
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


def open_media(source: MediaSource, sampling: Sampler | None = None, *, name: str = "bytes") -> Media:
    """One input as `Media`; of a clip the frames that `sampling` picks, 4 spread evenly by default.

    What bytes and a URL's content are, they say themselves; a URL is fetched only from public addresses. `name` is what
    bytes are called. Raises `BadInput` in one line.
    """
    if isinstance(source, Media):
        return source
    if isinstance(source, Clip):
        return _of_clip(source, source.source)
    if isinstance(source, str) and is_url(source):
        return open_media(fetch_url(source), sampling, name=source)
    if isinstance(source, bytes):
        kind = kind_of(source[:HEAD_BYTES])
        if kind is not None and kind.medium == "video":
            return _clip_in_bytes(source, kind.suffixes[0], name, sampling)
    if isinstance(source, str | Path):
        name = str(source)
        if is_video(source):
            return _of_clip(load_clip(source, sampling=sampling), name)
    notes: list[str] = []
    image = load_image(source, notes=notes, name=name)
    return Media((image,), source=name if isinstance(source, str | Path | bytes) else type(source).__name__,
                 notes=tuple(notes))  # fmt: skip


def open_all(inputs: Sequence[MediaSource], sampling: Sampler | None = None) -> list[Media]:
    """Each input, each distinct one opened once. Raises `BadInput` for a single input in the place of a list."""
    single = isinstance(inputs, np.ndarray) and inputs.ndim < 4
    if single or isinstance(inputs, str | bytes | Path | Image.Image | Clip | Media | Mapping):
        raise BadInput(f"inputs: expected a list of pictures and clips, got a single {type(inputs).__name__}")
    open_one = opener(sampling)
    return [open_one(item) for item in inputs]


def _clip_in_bytes(content: bytes, suffix: str, name: str, sampling: Sampler | None) -> Media:
    """Decoders read files, so it is one for as long as that takes."""
    with tempfile.TemporaryDirectory(prefix="vlm-") as folder:
        path = Path(folder) / f"clip{suffix}"
        path.write_bytes(content)
        try:
            clip = load_clip(path, sampling=sampling)
        except BadInput as error:
            raise BadInput(str(error).replace(str(path), name)) from None
    media = _of_clip(clip, name)
    return replace(media, notes=tuple(note.replace(str(path), name) for note in media.notes))


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

"""The key of a picture or clip in what an engine remembers: its content and all that it is seen by, never its name."""

from __future__ import annotations

import hashlib

from PIL import Image

from vlm.media.open import Media
from vlm.models.processor import Layout


class Framed:
    """A digest of fields, each with its length before it, so that no two lists of fields are the same bytes."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, *fields: bytes | str) -> None:
        for field in fields:
            data = field.encode("utf-8", "surrogatepass") if isinstance(field, str) else field
            self._digest.update(f"{type(field).__name__} {len(data)} ".encode())
            self._digest.update(data)

    def digest(self) -> bytes:
        return self._digest.digest()


def picture_key(item: Media, layout: Layout, identity: bytes, salt: bytes) -> bytes:
    """32 bytes. `identity` tells models and their settings apart, `salt` clients.

    Fields: the frames as decoded - turned as their files say, with size, mode, palette and transparency - and their
    times; the layout.
    """
    framed = Framed()
    framed.add(identity, salt, repr(layout), repr(item.times), str(item.timed), repr(item.duration))
    for frame in item.frames:
        _add_frame(framed, frame)
    return framed.digest()


def _add_frame(framed: Framed, frame: Image.Image) -> None:
    palette = frame.getpalette("RGBA") if frame.mode in ("P", "PA") else None
    framed.add(frame.mode, repr(frame.size), repr(frame.info.get("transparency")), bytes(palette or ()))
    framed.add(frame.tobytes())

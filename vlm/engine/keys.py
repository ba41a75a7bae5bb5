"""What tells pictures and clips apart in an engine's caches: sha256 over what is read of them.

Every field is written with its kind and its length, so that no two lists of fields have the same bytes. Never a path or
an address: the same picture has one key wherever it came from, and another picture under the same name has another.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import fields
from typing import Any

from PIL import Image

from vlm.media.open import Media
from vlm.models.processor import Layout

STRIP = 2**17
"""Pixels that are copied at a time."""


def picture_key(item: Media, layout: Layout, identity: bytes, salt: bytes) -> bytes:
    """32 bytes of a picture or clip as a model sees it: the frames' pixels in order, with mode, size and palette, their
    times, how they are laid out, by which model (`identity`) and for whom (`salt`)."""
    digest = hashlib.sha256(b"vlm picture 1")
    _write(digest, (salt, identity, layout, item.times, item.timed, item.duration, len(item.frames)))
    for frame in item.frames:
        _write_frame(digest, frame)
    return digest.digest()


def _write_frame(digest: Any, frame: Image.Image) -> None:
    palette = frame.getpalette("RGBA")
    _write(
        digest, (frame.mode, frame.size, frame.info.get("transparency"), None if palette is None else bytes(palette))
    )
    rows = max(1, STRIP // frame.width)
    for top in range(0, frame.height, rows):
        strip = frame.crop((0, top, frame.width, min(top + rows, frame.height)))
        _write(digest, strip.tobytes())


def _write(digest: Any, value: object) -> None:
    """A value as its kind, its length and its content."""
    if isinstance(value, bytes):
        content = value
    elif isinstance(value, float):
        content = struct.pack("<d", value)
    elif isinstance(value, tuple):
        content = b"".join(_digest(part) for part in value)
    elif isinstance(value, Layout):
        content = b"".join(_digest(getattr(value, field.name)) for field in fields(value))
    else:
        assert value is None or isinstance(value, (str, int))
        content = str(value).encode(errors="surrogatepass")
    digest.update(f"{type(value).__name__} {len(content)}:".encode())
    digest.update(content)


def _digest(value: object) -> bytes:
    digest = hashlib.sha256()
    _write(digest, value)
    return digest.digest()

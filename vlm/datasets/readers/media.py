"""Pictures and clips as files: below the data folder, or taken out of what carries them into the cache.

<cache>/datasets/media/ab/cdef....jpg     named by the sha256 of its content, so nothing is kept twice
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.media.kinds import HEAD_BYTES, described, kind_of
from vlm.weights.parts import cache_dir

MAX_MEDIA_BYTES = 256 * 2**20
"""The most bytes of one picture or clip that is taken out of a table, an archive or an array."""

# A root, a drive, a step upwards; a zero byte no system takes.
_LEADS_OUT = re.compile(r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)|\0")


def inside(folder: Path, name: str, where: str) -> Path:
    """`folder / name`. Raises `BadInput` where the name is absolute or leads out of the folder."""
    if _LEADS_OUT.search(name):
        raise BadInput(f"{where}: path {name[:80]!r} leads out of {folder}; expected a plain relative path")
    return folder / name


def keep(content: bytes, where: str) -> Path:
    """A picture's or clip's bytes as a file of the cache; its suffix comes from the content."""
    if len(content) > MAX_MEDIA_BYTES:
        raise BadInput(f"{where}: a picture of {len(content)} bytes; expected at most {MAX_MEDIA_BYTES}")
    kind = kind_of(content[:HEAD_BYTES])
    if kind is None or not kind.readable:
        raise BadInput(f"{where}: expected a picture's bytes, got {described(content[:HEAD_BYTES])}")
    return _keep(hashlib.sha256(content).hexdigest(), kind.suffixes[0], content)


def keep_pixels(pixels: np.ndarray, where: str) -> Path:
    """Pixels `[H, W]` or `[H, W, 3]`, uint8, as a PNG of the cache."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadInput(f"{where}: pixels are {pixels.dtype} {list(pixels.shape)}; expected uint8 [H, W] or [H, W, 3]")
    digest = hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
    if _place(digest, ".png").is_file():
        return _place(digest, ".png")
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return _keep(digest, ".png", encoded.getvalue())


def _place(digest: str, suffix: str) -> Path:
    return cache_dir() / "datasets" / "media" / digest[:2] / f"{digest[2:]}{suffix}"


def _keep(digest: str, suffix: str, content: bytes) -> Path:
    path = _place(digest, suffix)
    # No fsync, which would cost minutes for a large set: the size tells a file that a power cut left short.
    if not (path.is_file() and path.stat().st_size == len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
            temporary.write(content)
        os.replace(temporary.name, path)
    return path

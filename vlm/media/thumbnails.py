"""Small pictures to show: always encoded here, never a caller's bytes."""

from __future__ import annotations

import io

from PIL import Image

SIDE = 320
"""The longer one."""


def thumbnail(picture: Image.Image) -> bytes:
    """A JPEG of at most `SIDE` pixels a side."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()

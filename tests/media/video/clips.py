"""Small videos made on the spot: each frame carries its number, and its time is known."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

ROWS, COLUMNS = 3, 4
"""A frame is 3 x 4 blocks, black or white: the bits of its number, the least first."""


def picture_of(number: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3]: `number` as blocks."""
    width, height = size
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    bits_HW = number >> (rows[:, None] * COLUMNS + columns) & 1
    return np.repeat((30 + 190 * bits_HW)[..., None], 3, axis=2).astype(np.uint8)


def number_seen(image: Image.Image | np.ndarray, quarter_turns: int = 0) -> int:
    """The number drawn into a frame that was turned counterclockwise after it was drawn."""
    gray_HW = np.rot90(np.asarray(image)[..., 1], -quarter_turns).astype(float)
    blocks = [np.array_split(row, COLUMNS, axis=1) for row in np.array_split(gray_HW, ROWS, axis=0)]
    bits = [_middle(block) > 125 for row in blocks for block in row]
    return sum(int(bit) << place for place, bit in enumerate(bits))


def _middle(block: np.ndarray) -> float:
    height, width = block.shape
    return float(block[height // 4 : -(height // 4), width // 4 : -(width // 4)].mean())


def write_video(
    path: Path,
    pts: Sequence[int],
    *,
    time_base: Fraction = Fraction(1, 10),
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    gop: int = 5,
    b_frames: int | None = None,
    rotation: int = 0,
    faststart: bool = False,
    interlaced: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """One frame for each of `pts` (in `time_base`); frame i shows the number i."""
    container_options = {"movflags": "faststart"} if faststart else {}
    if min(pts, default=0) < 0:  # what starts before zero is kept in the file and cut by an edit list
        container_options["avoid_negative_ts"] = "disabled"
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=round(1 / time_base), options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation")
            stream.set_display_rotation(rotation)
        for number, time in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(picture_of(number, size), format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_by_edit_list(path: Path, first: float, seconds: float) -> Path:
    """Rewrite the only edit of an MP4 file: it plays `seconds` from `first` on (ISO 14496-12, 8.6.6)."""
    content = bytearray(path.read_bytes())
    movie_scale = struct.unpack_from(">I", content, content.index(b"mvhd") + 16)[0]
    media_scale = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
    at = content.index(b"elst") + 8
    assert struct.unpack_from(">I", content, at)[0] == 1
    delay = struct.unpack_from(">i", content, at + 8)[0]
    struct.pack_into(">Ii", content, at + 4, round(seconds * movie_scale), delay + round(first * media_scale))
    path.write_bytes(content)
    return path


def write_audio(path: Path) -> None:
    """A tenth of a second of silence, and no video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

"""Small videos made on the spot, whose frames and times are known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest


def write_video(
    path: Path,
    pts: list[int],
    *,
    time_base: Fraction = Fraction(1, 10),
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    rotation: int = 0,
    faststart: bool = False,
) -> None:
    """One frame for each of `pts` (in `time_base`): frame i is `gray_of(i)` with a white top left quarter."""
    options = {"movflags": "faststart"} if faststart else {}
    if min(pts) < 0:  # what starts before zero is kept in the file and cut by an edit list
        options["avoid_negative_ts"] = "disabled"
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=round(1 / time_base))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = 5
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation")
            stream.set_display_rotation(rotation)
        for index, time in enumerate(pts):
            pixels_HWC = np.full((size[1], size[0], 3), gray_of(index), dtype=np.uint8)
            pixels_HWC[: size[1] // 2, : size[0] // 2] = 255
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_audio(path: Path) -> None:
    """A tenth of a second of silence, and no video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def gray_of(index: int) -> int:
    return 20 + 8 * (index % 24)


def index_seen(image: object) -> int:
    """Which frame this picture is, read off its gray."""
    gray = float(np.asarray(image)[-8:, -8:].mean())
    return round((gray - 20) / 8)

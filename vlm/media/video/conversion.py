"""A decoded frame as people see it: turned and mirrored as the file says, with square pixels, in sRGB, bounded."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vlm.media.video.tone_mapping import TRANSFERS, to_srgb

MAX_SIDE = 1280
"""The longest side of a frame handed out, in pixels; larger ones are scaled down while they are converted."""
_UNKNOWN = 2
"""What H.273 calls an unspecified property of colour."""


class Conversion:
    """Frames of one stream as uint8 [H, W, 3]. What it says of them is known once one was converted.

    `size` is the (width, height) handed out, `notes` tell what was changed. `plain` says that frames are only scaled:
    not turned, mirrored or tone-mapped.
    """

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.notes: list[str] = []
        self.plain = True
        self._swapped, self._flips = False, (1, 1)
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, stream: VideoStream, size: tuple[int, int] | None = None) -> np.ndarray:
        """With `size`, squeezed to it and as it lies in the file."""
        if self.size is None:
            self.size = self._look(frame, stream)
        width, height = size or (self.size[::-1] if self._swapped else self.size)
        pixels_HW3 = self._pixels(frame, _transfer(frame, stream), width, height)
        if size is not None or not (self._swapped or self._flips != (1, 1)):
            return pixels_HW3
        turned = pixels_HW3.transpose(1, 0, 2) if self._swapped else pixels_HW3
        return np.ascontiguousarray(turned[:: self._flips[1], :: self._flips[0]])

    def _look(self, frame: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
        self._swapped, self._flips, exact = orientation(frame)
        transfer = TRANSFERS.get(_transfer(frame, stream))
        self.plain = not (self._swapped or self._flips != (1, 1) or transfer)
        if not exact:
            self.notes.append("turned by an angle that is no quarter of a turn, shown at the nearest one")
        if transfer:
            self.notes.append(f"high dynamic range ({transfer}), tone-mapped to sRGB")
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        scale = min(1.0, MAX_SIDE / max(frame.width * aspect, frame.height))
        size = max(1, round(frame.width * aspect * scale)), max(1, round(frame.height * scale))
        return size[::-1] if self._swapped else size

    def _pixels(self, frame: av.VideoFrame, transfer: int, width: int, height: int) -> np.ndarray:
        bright = transfer in TRANSFERS
        # One thread: starting more takes longer than converting.
        found = self._reformatter.reformat(frame, width, height, "rgb48le" if bright else "rgb24", threads=1)
        return to_srgb(found.to_ndarray(), transfer, int(frame.color_primaries)) if bright else found.to_ndarray()


def _transfer(frame: av.VideoFrame, stream: VideoStream) -> int:
    own = int(frame.color_trc)
    return int(stream.codec_context.color_trc) if own == _UNKNOWN else own


def orientation(frame: av.VideoFrame) -> tuple[bool, tuple[int, int], bool]:
    """(whether rows become columns, (1 or -1 along x, along y) after that, whether the matrix says just this).

    By the display matrix (ISO 14496-12, 6.2.2): a point (x, y) of the frame is shown at (a x + c y, b x + d y).
    """
    found = cast("Mapping[Type, Buffer]", frame.side_data)
    if Type.DISPLAYMATRIX not in found:
        return False, (1, 1), True
    a, b, _, c, d = struct.unpack_from("=5i", bytes(found[Type.DISPLAYMATRIX]))
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    x, y = (c, b) if swapped else (a, d)
    rest = (a, d) if swapped else (b, c)
    exact = max(map(abs, rest)) <= 0.02 * max(abs(x), abs(y))  # a degree, as FFmpeg has it
    return swapped, (-1 if x < 0 else 1, -1 if y < 0 else 1), exact

"""Exact frames through PyAV (FFmpeg): from the keyframe before each wanted frame, told apart by their time stamps.

Seeking in FFmpeg lands near a time, and the first frames after it may be other ones than a count suggests. So a frame
is known by its `pts` alone, the packets tell which keyframe it depends on, and where the file was cut in or the seek
landed late the file is decoded in order instead. Frames that nothing refers to are not decoded unless they are wanted.

Letters: N frames of the file, H and W pixels. A place is a packet's number in the order of decoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

from vlm.errors import BadInput
from vlm.media.video.container import Alive, decode, open_container, packets_of
from vlm.media.video.conversion import Conversion
from vlm.media.video.streams import chosen_stream, left_out
from vlm.media.video.timeline import Packets, Timeline, read_timeline

THUMBNAIL = 32
MAX_THREADS = 4
THREADED_PIXELS = 200_000
"""Frames smaller than this decode faster in one thread: handing them around takes longer."""
AT_ONCE = 8
"""Frames that a library is asked for by one call: bounds the memory, and the time between two signs of life."""
_PREDICTED = (PictureType.P, PictureType.B)


class _NoKeyframe(Exception):
    """What a container calls a keyframe depends on frames before it: some call every frame one."""


class PyavDecoder:
    """One open file. `frames` gives each wanted frame once, as uint8 [H, W, 3], in the order they are decoded."""

    def __init__(self, path: Path, alive: Alive = lambda: None) -> None:
        self.path, self.alive = path, alive
        self._chosen: int | None = None
        self._open()
        self._left_out = left_out(self._container, self._stream)
        self.timeline: Timeline = read_timeline(self._container, self._stream, path, alive)
        packets = self.timeline.packets
        self._place: dict[int | None, int] = {pts: place for place, pts in enumerate(packets.pts)} if packets else {}
        self._convert = Conversion()

    def _open(self) -> None:
        self._container = open_container(self.path)
        try:
            self._stream: VideoStream = chosen_stream(self._container, self.path, self.alive, self._chosen)
        except BadInput:
            self._container.close()
            raise
        self._chosen = self._stream.index
        context = self._stream.codec_context
        context.thread_count = threads(context.width * context.height)
        context.thread_type = "AUTO" if context.thread_count > 1 else "NONE"

    def close(self) -> None:
        self._container.close()

    def size(self) -> tuple[int, int]:
        """(width, height) of the frames handed out: upright, square pixels, at most `MAX_SIDE`."""
        if self._convert.size is None:
            next(self.exact_frames([0]))
        assert self._convert.size is not None
        return self._convert.size

    def notes(self) -> list[str]:
        """What is left out or changed of what the file holds, a line each."""
        self.size()  # a frame says how it is shown
        return [*self._left_out, *self.timeline.notes, *self._convert.notes]

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(index, pixels) of each of `wanted`. Raises `BadInput` where one does not decode, whole and at its time."""
        return self.exact_frames(wanted)

    def thumbnails(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The same, `THUMBNAIL` pixels square and as they lie in the file: enough to see what changes."""
        return self.exact_frames(wanted, (THUMBNAIL, THUMBNAIL))

    def exact_frames(
        self, wanted: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        left = set(wanted)
        if self.timeline.first_tells and self._convert.size is None and left != {0}:
            self.size()
        for index, frame in chain(self._seeking(left), self._in_order(left)):
            left.discard(index)
            yield index, self._convert(frame, self._stream, size)
        if left:
            count, first = len(self.timeline.times_N), min(left)
            raise BadInput(f"{self.path}: expected {count} frames, got a file that ends before {first}")

    def _seeking(self, left: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Those of `left` that can be had from the keyframe before them."""
        packets, pts_N = self.timeline.packets, self.timeline.pts_N
        if packets is None or not self.timeline.seekable:
            return
        index_of: dict[int | None, int] = {pts_N[index]: index for index in left}
        context = self._stream.codec_context
        can_skip = _can_skip(context)
        for start, places in runs(packets, [self._place[pts] for pts in index_of]):
            needed = {packets.pts[place] for place in places}
            try:
                for packet in self._packets_from(packets, start):
                    place = len(packets.pts) if packet is None else self._place[packet.pts or 0]
                    if can_skip and packet is not None:
                        context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
                    # What is still inside the decoder comes out once it is told that nothing follows.
                    for given in (packet, None) if place == places[-1] else (packet,):
                        for frame in context.decode(given):
                            pts = frame.pts
                            if pts == packets.pts[start] and frame.pict_type in _PREDICTED:
                                raise _NoKeyframe
                            if pts is not None and pts in needed and not frame.is_corrupt:
                                needed.discard(pts)
                                yield index_of[pts], frame
                    if not needed or place >= places[-1]:
                        break
            except (av.FFmpegError, _NoKeyframe):
                continue  # decoding in order says what is wrong, or gets by without the keyframe
            finally:
                context.flush_buffers()

    def _packets_from(self, packets: Packets, start: int) -> Iterator[Packet | None]:
        """The packets from place `start` on, and None at the end; nothing where no seek lands before it."""
        for stamp in dict.fromkeys((packets.pts[start], packets.dts[start])):  # formats go by one or by the other
            if stamp is None:
                continue
            self._container.seek(stamp, stream=self._stream)
            landed = False
            for packet in packets_of(self._container, self._stream, self.alive):
                place = self._place.get(packet.pts, -1) if packet.pts is not None else None
                if not landed and (place is None or place > start):
                    break
                landed = True
                if place is None or place >= start:
                    yield packet if place is not None else None
            if landed:
                return

    def _in_order(self, left: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Those of `left`, decoding the file from its start."""
        if not left:
            return
        self._container.close()
        self._open()
        listed = self.timeline.packets is not None
        index_of = {pts: index for index, pts in enumerate(self.timeline.pts_N)} if listed else {}
        for count, frame in enumerate(decode(self._container, self._stream, self.path, self.alive)):
            index = index_of.get(frame.pts, -1) if listed else count
            if index in left:
                self._check(index, frame)
                yield index, frame
                if not left:
                    return

    def _check(self, index: int, frame: av.VideoFrame) -> None:
        time, stamp = self.timeline.times_N[index], self.timeline.pts_N[index]
        if frame.is_corrupt or frame.pts != stamp:
            got = "a broken one" if frame.is_corrupt else f"one of another time ({frame.pts}, not {stamp})"
            raise BadInput(f"{self.path}: expected frame {index} at {time:.3f} s, got {got}: the file is damaged")


class SequentialDecoder(PyavDecoder):
    """The same frames by decoding the file from its start: the plain way that the other must agree with."""

    def _seeking(self, left: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        return iter(())


def runs(packets: Packets, places: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Wanted places in ascending order, grouped by the keyframe that decoding has to begin at.

    That is the last one at or before the frame that is not shown after it either: in an open group of pictures, frames
    that are shown before a keyframe follow it in the file and refer to what was before it.
    """
    found: dict[int, list[int]] = {}
    ordered = sorted(places)
    keys = (place for place, key in enumerate(packets.key) if key)
    before: list[int] = []
    upcoming = next(keys, None)
    for place in ordered:
        while upcoming is not None and upcoming <= place:
            before.append(upcoming)
            upcoming = next(keys, None)
        start = next((key for key in reversed(before) if packets.pts[key] <= packets.pts[place]), 0)
        found.setdefault(start, []).append(place)
    return sorted(found.items())


def threads(pixels: int) -> int:
    """Decoding threads for frames of so many pixels: a core each, at most `MAX_THREADS`."""
    if pixels < THREADED_PIXELS:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_THREADS, cores)


def _can_skip(context: VideoCodecContext) -> bool:
    """Whether a frame marked as no reference is one for no other frame at all.

    In H.264 and MPEG-4 it is. In HEVC (H.265, 7.4.2.2) only within its temporal layer, so there must be one layer; the
    configuration record says so (ISO 14496-15, 8.3.3.1.2).
    """
    if context.name == "hevc":
        record = context.extradata or b""
        return len(record) > 22 and record[0] == 1 and (record[21] >> 3) & 7 == 1
    return context.name in ("h264", "mpeg4")

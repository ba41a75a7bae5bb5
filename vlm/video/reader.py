"""One interface over two decoders: frames by index, each with the time its container gives it.

The container is read first, without decoding: the times of its packets say what frames there are. PyAV then decodes
in order, which is exact on every file. decord is faster and wrong on edit lists and odd frame rates, so `auto` takes
it only for a file whose container rules those out; it is opened for one call and dropped, because an open decord
reader keeps filling its memory.

Letters: N frames of the file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import numpy as np
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

from vlm.errors import BadInput
from vlm.vision.images import check_file

Backend = Literal["auto", "pyav", "decord"]

MAX_SIDE = 1280
"""The longest side of a frame handed out, in pixels; larger ones are scaled down while they are converted."""

# Containers that hold frames themselves: a playlist would have the decoder open whatever it names.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,live_flv,asf,gif,apng,h264,hevc,m4v,ivf"
)
_DECORD_CODECS = ("h264", "mpeg4")


@dataclass(frozen=True)
class _Facts:
    """What the container says, and what its first frame showed."""

    times_N: np.ndarray
    duration: float
    size: tuple[int, int]
    quarter_turns: int
    plain: bool
    """Constant frame rate, no edit list, no rotation, square pixels, as many packets as promised, a common codec."""


class VideoReader:
    """A video file: `times_N`, `duration`, `size` and `frames(indices)`. Decodes in order with PyAV.

    `times_N` is float64 [N], the presentation time of each frame in seconds (`pts * time_base`), in display order;
    `duration` the seconds from the first frame's start to the last one's end; `size` the (width, height) of the
    frames handed out: upright, square pixels, longest side at most `MAX_SIDE`.
    """

    def __init__(self, path: Path, facts: _Facts) -> None:
        self.path = path
        self._facts = facts
        self.times_N = facts.times_N
        self.duration = facts.duration
        self.size = facts.size

    def frames(self, indices: Sequence[int]) -> list[Image.Image]:
        """The frames at `indices` (any order, repeats allowed), each an RGB image of `size`.

        Raises `IndexError` for an index outside 0..N-1, and `BadInput` where the file does not decode that far.
        """
        self._check(indices)
        if not indices:
            return []
        wanted = set(indices)
        found: dict[int, Image.Image] = {}
        with _opened(self.path) as container:
            stream = _video_stream(container, self.path)
            stream.thread_type = "NONE"
            for index, frame in enumerate(_decode(container, stream, self.path)):
                if index in wanted:
                    self._check_time(index, frame)
                    found[index] = _upright(frame, self._facts)
                    if len(found) == len(wanted):
                        break
        if len(found) < len(wanted):
            missing = min(wanted - found.keys())
            raise BadInput(f"{self.path}: expected {len(self.times_N)} frames, got a file that ends before {missing}")
        return [found[index] for index in indices]

    def _check(self, indices: Sequence[int]) -> None:
        for index in indices:
            if not 0 <= index < len(self.times_N):
                raise IndexError(f"{self.path}: frame {index} of {len(self.times_N)}")

    def _check_time(self, index: int, frame: av.VideoFrame) -> None:
        if frame.time is not None and abs(frame.time - self.times_N[index]) > 1e-6:
            raise BadInput(
                f"{self.path}: expected frame {index} at {self.times_N[index]:.3f} s, got one at {frame.time:.3f} s: "
                "the file is damaged"
            )

    def close(self) -> None:
        """Nothing stays open between calls; here for symmetry with `open_video`."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DecordReader(VideoReader):
    """The same frames through decord."""

    def frames(self, indices: Sequence[int]) -> list[Image.Image]:
        import decord

        self._check(indices)
        if not indices:
            return []
        width, height = self.size
        try:
            reader = decord.VideoReader(
                str(self.path.resolve()), ctx=decord.cpu(0), width=width, height=height, num_threads=1
            )
            if len(reader) != len(self.times_N):
                raise BadInput(
                    f"{self.path}: expected {len(self.times_N)} frames, decord got {len(reader)}; use backend='pyav'"
                )
            pixels_NHWC = reader.get_batch(list(indices)).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise BadInput(f"{self.path}: expected a video decord can read, got: {_line(error)}") from None
        return [Image.fromarray(pixels_HWC) for pixels_HWC in pixels_NHWC]


def open_video(path: str | Path, backend: Backend = "auto") -> VideoReader:
    """A reader of the video at `path`. `auto` takes decord where it is installed and the container is plain.

    Raises `BadInput`, one line, where the file is missing, is not a video, is cut short, or has no frames.
    """
    if backend not in ("auto", "pyav", "decord"):
        raise BadInput(f"video backend {backend!r}: expected auto, pyav or decord")
    path = Path(path)
    check_file(path, "a video file")
    facts = _facts(path)
    installed = importlib.util.find_spec("decord") is not None
    if backend == "decord" and not installed:
        raise BadInput("video backend 'decord': expected the decord package, got none installed; use 'pyav'")
    if backend == "decord" or (backend == "auto" and installed and facts.plain):
        return DecordReader(path, facts)
    return VideoReader(path, facts)


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path.resolve()), options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadInput(f"{path}: expected a video, got a file that does not open as one ({_line(error)})") from None


def _video_stream(container: av.container.InputContainer, path: Path) -> VideoStream:
    """The first stream of moving pictures; the cover of a song is not one."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
    raise BadInput(f"{path}: expected a video stream, got streams of type: {kinds}")


def _facts(path: Path) -> _Facts:
    with _opened(path) as container:
        stream = _video_stream(container, path)
        _check_whole(stream, path)
        pts: list[int] = []
        durations: dict[int, int] = {}
        plain = True
        try:
            for packet in container.demux(stream):
                if packet.size == 0 and packet.pts is None:
                    continue  # the flush at the end
                plain &= packet.pts is not None and not packet.is_discard and (bool(pts) or packet.is_keyframe)
                if packet.is_corrupt:
                    raise BadInput(f"{path}: expected a whole video, got one that is cut short or damaged")
                if packet.pts is not None:
                    pts.append(packet.pts)
                    durations[packet.pts] = packet.duration or 0
        except av.FFmpegError as error:
            raise BadInput(f"{path}: expected a whole video, got a damaged one ({_line(error)})") from None
        promised, tick = stream.frames, float(stream.time_base or 0)
        plain &= len(set(pts)) == len(pts) > 0
        codec = stream.codec_context.name
    with _opened(path) as container:
        stream = _video_stream(container, path)
        decoded = _decode(container, stream, path)
        first = next(decoded, None)
        if first is None:
            raise BadInput(f"{path}: expected a video, got no frame that decodes")
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        rate = float(stream.average_rate or 0)
        if not plain:  # the packets do not say what comes out of the decoder: only decoding does
            times = [first.time] + [frame.time for frame in decoded]
            times_N = np.array([i / (rate or 25.0) if t is None else t for i, t in enumerate(times)], dtype=np.float64)
        else:
            times_N = np.array(sorted(pts), dtype=np.float64) * tick
    last = durations.get(max(pts), 0) * tick if pts else 0.0
    last = last or (float(np.median(np.diff(times_N))) if len(times_N) > 1 else 1 / rate if rate else 0.0)
    quarter_turns = round(float(first.rotation) / 90) % 4
    constant = len(times_N) < 3 or float(np.ptp(np.diff(times_N))) <= 2.5 * tick
    plain &= constant and promised == len(times_N) and quarter_turns == 0 and aspect == 1 and codec in _DECORD_CODECS
    return _Facts(
        times_N=times_N,
        duration=float(times_N[-1] - times_N[0] + last),
        size=_bounded(first.width * aspect, first.height, quarter_turns),
        quarter_turns=quarter_turns,
        plain=plain,
    )


def _check_whole(stream: VideoStream, path: Path) -> None:
    """Raise where the container's own sizes point beyond the end of the file: the rest was never written or copied."""
    length = path.stat().st_size
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    end = max(end, _outer_end(path))
    if end > length:
        raise BadInput(f"{path}: expected a whole video of at least {end} bytes, got one cut short at {length}")


def _outer_end(path: Path) -> int:
    """Where the outermost element of a Matroska (RFC 8794) or AVI (RIFF) file says it ends; 0 where it does not say."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start[:4] == b"RIFF":
        size = int.from_bytes(start[4:8], "little")
        return 0 if size == 0xFFFFFFFF else 8 + size
    segment = start.find(b"\x18\x53\x80\x67")
    if start[:4] != b"\x1a\x45\xdf\xa3" or segment < 0 or segment + 5 > len(start) or not start[segment + 4]:
        return 0
    width = 9 - start[segment + 4].bit_length()  # the leading zeros of the first byte count the bytes that follow it
    size = int.from_bytes(start[segment + 4 : segment + 4 + width], "big") - (1 << 7 * width)
    unknown = (1 << 7 * width) - 1
    return 0 if size == unknown else segment + 4 + width + size


def _decode(container: av.container.InputContainer, stream: VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        raise BadInput(f"{path}: expected a whole video, got a damaged one ({_line(error)})") from None


def _bounded(width: float, height: float, quarter_turns: int) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return (size[1], size[0]) if quarter_turns % 2 else size


def _upright(frame: av.VideoFrame, facts: _Facts) -> Image.Image:
    width, height = (facts.size[1], facts.size[0]) if facts.quarter_turns % 2 else facts.size
    pixels_HWC = frame.to_ndarray(format="rgb24", width=width, height=height)
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels_HWC, facts.quarter_turns)))


def _line(error: BaseException) -> str:
    """The error in a line, without the path that FFmpeg's own text repeats."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or type(error).__name__

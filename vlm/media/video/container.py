"""What a container says of its video, read without decoding: which frames there are, when, and where to begin.

A demuxer gives a file's packets in the order they are decoded in. Where each is one frame with a time of its own, the
packets are the timeline; elsewhere only decoding the file tells, once, in order.

Letters: N frames in the order they are shown, P packets in the order they are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vlm.errors import BadInput
from vlm.media.video.whole import check_whole

Alive = Callable[[], None]
"""Called at every packet, so that whoever waits can tell slow from hung."""

MAX_PIXELS = 40_000_000
"""The most pixels of one frame, as for a picture: what a file claims is allocated before any of it is decoded."""

# Containers that hold frames themselves: a playlist would have the decoder open whatever it names.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,live_flv,asf,gif,apng,h264,hevc,m4v,ivf"
)
# Codecs of which a packet is one frame.
_FRAME_A_PACKET = frozenset(
    "h264 hevc av1 vp8 vp9 mpeg4 mpeg2video mpeg1video mjpeg png prores dnxhd ffv1 gif apng".split()
)


@dataclass(frozen=True)
class Packets:
    """`pts` (unique), `dts` and `key`: whether a decoder can begin there, of each of P packets."""

    pts: list[int]
    dts: list[int | None]
    key: list[bool]


@dataclass(frozen=True)
class Timeline:
    """When each of N frames is shown.

    `times_N` is float64 [N], seconds, ascending; `duration` goes from the first frame's start to the last one's end;
    `keyframes` are the frames that were coded alone. `steady` files have a constant rate, no edit list, as many frames
    as they promise, no frame shown before the keyframe that it follows, and a codec every decoder knows. `pts_N` and
    `packets` are there where packets tell it all.
    """

    times_N: np.ndarray
    duration: float
    keyframes: list[int]
    steady: bool = False
    pts_N: list[int] = field(default_factory=list)
    packets: Packets | None = None


def open_container(path: Path) -> InputContainer:
    """Raises `BadInput` where `path` is no container that holds its frames itself."""
    try:
        return av.open(str(path.resolve()), options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadInput(f"{path}: expected a video, got a file that does not open as one ({line(error)})") from None


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first stream of moving pictures; the cover of a song is not one."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            context = stream.codec_context
            if context.width * context.height > MAX_PIXELS:
                got = f"{context.width}x{context.height}"
                raise BadInput(f"{path}: expected a video of at most {MAX_PIXELS} pixels a frame, got {got}")
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
    raise BadInput(f"{path}: expected a video stream, got streams of type: {kinds}")


def read_timeline(container: InputContainer, stream: VideoStream, path: Path, alive: Alive) -> Timeline:
    """The timeline of a container just opened; it is read to its end. Raises `BadInput` for a damaged file."""
    packets = Packets([], [], [])
    shown: list[tuple[int, bool]] = []
    codec = stream.codec.canonical_name
    listed, hidden, open_groups = codec in _FRAME_A_PACKET, False, False
    last, last_key, last_duration = -(1 << 63), -(1 << 63), 0
    try:
        for packet in container.demux(stream):
            alive()
            pts = packet.pts
            if pts is None:
                listed &= packet.size == 0  # the flush at the end
                continue
            if packet.is_corrupt:
                raise BadInput(f"{path}: expected a whole video, got one that is cut short or damaged")
            packets.pts.append(pts)
            packets.dts.append(packet.dts)
            packets.key.append(packet.is_keyframe)
            last_key = pts if packet.is_keyframe else last_key
            open_groups |= pts < last_key
            # An edit list cuts it, or it only serves other frames (VP8's show_frame bit, RFC 6386, 9.1).
            if packet.is_discard or (codec == "vp8" and packet.size and not memoryview(packet)[0] & 0x10):
                hidden = True
                continue
            shown.append((pts, packet.is_keyframe))
            if pts > last:
                last, last_duration = pts, packet.duration or 0
    except av.FFmpegError as error:
        raise BadInput(f"{path}: expected a whole video, got a damaged one ({line(error)})") from None
    check_whole(stream, path, len(packets.pts))
    listed &= bool(shown) and packets.key[0] and len(set(packets.pts)) == len(packets.pts)
    if not listed:
        return _decoded_timeline(path, alive)
    tick = float(stream.time_base or 0)
    shown.sort()
    times_N = np.array([pts for pts, _ in shown], dtype=np.float64) * tick
    steps = np.diff(times_N)
    constant = len(times_N) < 3 or float(np.ptp(steps)) <= 2.5 * tick
    known = codec in ("h264", "mpeg4")
    return Timeline(
        times_N=times_N,
        duration=_duration(times_N, last_duration * tick, float(stream.average_rate or 0)),
        keyframes=[index for index, (_, key) in enumerate(shown) if key],
        steady=constant and not hidden and not open_groups and stream.frames == len(times_N) and known,
        pts_N=[pts for pts, _ in shown],
        packets=packets,
    )


def _decoded_timeline(path: Path, alive: Alive) -> Timeline:
    with open_container(path) as container:
        stream = video_stream(container, path)
        rate = float(stream.average_rate or 0)
        times, keyframes = [], []
        for index, frame in enumerate(decode(container, stream, path, alive)):
            times.append(index / (rate or 25.0) if frame.time is None else frame.time)
            if frame.key_frame:
                keyframes.append(index)
    if not times:
        raise BadInput(f"{path}: expected a video, got no frame that decodes")
    times_N = np.array(times, dtype=np.float64)
    return Timeline(times_N, _duration(times_N, 0.0, rate), keyframes)


def _duration(times_N: np.ndarray, last: float, rate: float) -> float:
    """`last` is how long the last frame is said to be shown, in seconds; 0 where that is not said."""
    last = last or (float(np.median(np.diff(times_N))) if len(times_N) > 1 else 1 / rate if rate else 0.0)
    return float(times_N[-1] - times_N[0] + last)


def decode(container: InputContainer, stream: VideoStream, path: Path, alive: Alive) -> Iterator[av.VideoFrame]:
    """Every frame of the file, in order. Raises `BadInput` where it does not decode."""
    try:
        for packet in container.demux(stream):
            alive()
            yield from packet.decode()
    except av.FFmpegError as error:
        raise BadInput(f"{path}: expected a whole video, got a damaged one ({line(error)})") from None


def line(error: BaseException) -> str:
    """The error in a line, without the path that FFmpeg's own text repeats."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or type(error).__name__

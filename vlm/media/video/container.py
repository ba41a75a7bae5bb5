"""A video file opened: its container, its packets decoded in order, and what a decoder says of it in a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vlm.errors import BadInput

Alive = Callable[[], None]
"""Called at every packet, so that whoever waits can tell slow from hung."""

# Containers that hold frames themselves: a playlist would have the decoder open whatever it names.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,live_flv,asf,gif,apng,h264,hevc,m4v,ivf"
)


def open_container(path: Path) -> InputContainer:
    """Raises `BadInput` where `path` is no container that holds its frames itself."""
    try:
        return av.open(str(path.resolve()), options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadInput(f"{path}: expected a video, got a file that does not open as one ({line(error)})") from None


def packets_of(container: InputContainer, stream: VideoStream, alive: Alive) -> Iterator[Packet]:
    """Those of one stream, and an empty one at the end, which makes a decoder give what is still inside it."""
    for packet in container.demux(stream):
        alive()
        yield packet
        if not packet.size and packet.pts is None and packet.dts is None:
            return  # PyAV would go on with streams that were found on the way, and fail


def decode(container: InputContainer, stream: VideoStream, path: Path, alive: Alive) -> Iterator[av.VideoFrame]:
    """Every frame of the file, in order. Raises `BadInput` where it does not decode."""
    try:
        for packet in packets_of(container, stream, alive):
            yield from packet.decode()
    except av.FFmpegError as error:
        raise BadInput(f"{path}: expected a whole video, got a damaged one ({line(error)})") from None


def line(error: BaseException) -> str:
    """The error in a line, without the path that FFmpeg's own text repeats."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or type(error).__name__

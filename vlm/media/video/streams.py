"""Which of a file's video streams is the film."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vlm.errors import BadInput
from vlm.media.video.container import Alive, open_container

MAX_PIXELS = 40_000_000
"""The most pixels of one frame, as for a picture: what a file claims is allocated before any of it is decoded."""
_DEFAULT = 5_000_000
"""What a stream marked as the default is worth, in pixels, when FFmpeg chooses one."""


def chosen_stream(container: InputContainer, path: Path, alive: Alive, index: int | None = None) -> VideoStream:
    """The stream that `ffmpeg` would show, but one of a single frame only where there is no other.

    That is the one marked as default, else the largest, else the first; the cover of a song is none. Where there are
    several, the file is read until each has two frames; `index` is the one chosen before. Raises `BadInput` where there
    is none, or its frames are too large.
    """
    streams = films(container)
    if not streams:
        strange = any(stream.codec_context is None for stream in container.streams.video)
        unknown = " (of a codec that is not known)" if strange else ""
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise BadInput(f"{path}: expected a video stream, got streams of type: {kinds}{unknown}")
    if index is None and len(streams) > 1:
        frames = _frames(path, [stream.index for stream in streams], alive)
        index = max(streams, key=lambda stream: (min(frames[stream.index], 2), _score(stream))).index
    chosen = streams[0] if index is None else next(stream for stream in streams if stream.index == index)
    width, height = chosen.codec_context.width, chosen.codec_context.height
    if width * height > MAX_PIXELS:
        raise BadInput(f"{path}: expected a video of at most {MAX_PIXELS} pixels a frame, got {width}x{height}")
    return chosen


def films(container: InputContainer) -> list[VideoStream]:
    """The streams of moving pictures that a decoder is there for."""
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    return [stream for stream in streams if not stream.disposition & Disposition.attached_pic]


def left_out(container: InputContainer, chosen: VideoStream) -> list[str]:
    """A line where there are other streams than the one chosen."""
    count, context = len(films(container)), chosen.codec_context
    used = f"stream {chosen.index} of {context.width}x{context.height} pixels is used"
    return [f"{count} video streams, {used}"] if count > 1 else []


def _score(stream: VideoStream) -> int:
    marked = bool(stream.disposition & Disposition.default)
    return stream.codec_context.width * stream.codec_context.height + marked * _DEFAULT


def _frames(path: Path, streams: list[int], alive: Alive) -> Counter[int]:
    """How many packets each stream has, counted to two."""
    found: Counter[int] = Counter()
    with open_container(path) as container:
        try:
            for packet in container.demux([container.streams[index] for index in streams]):
                alive()
                found[packet.stream_index] += packet.size > 0
                if all(found[index] > 1 for index in streams):
                    break
        except av.FFmpegError:
            pass  # who reads the packets of the stream that is chosen says what is wrong
    return found

"""`vlm bench video`: frames spread evenly over clips of several kinds, against the decoders a user would call instead.

The clips are made on the spot from the samples' photographs. Each side opens the file and ends with PIL images; the
frames must be the same before anything is timed, and a decoder that gives other ones is named as doing so. Ours is
`load_clip` as it stands, in its own process.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vlm import assets
from vlm.bench.timing import Missing, Ratio, alternate
from vlm.errors import VlmError
from vlm.media.video.backends.pyav import threads
from vlm.media.video.reader import open_video
from vlm.media.video.sampling.base import centres

Result = Ratio | Missing
Say = Callable[[str], None]
Frames = list[Image.Image]

FRAMES = (8, 32)
PHOTOGRAPHS = ("temple.jpg", "coffee.jpg", "cat.jpg")


@dataclass(frozen=True)
class Kind:
    """A clip to make: `seconds` of `rate` frames each, a keyframe at least every `group`."""

    what: str
    size: tuple[int, int]
    seconds: int
    group: int = 250
    suffix: str = "mp4"
    codec: str = "libx264"
    rate: int = 30
    uneven: bool = False
    options: dict[str, str] = field(default_factory=lambda: {"preset": "veryfast"})


KINDS = (
    Kind("240p, 3 s", (320, 240), 3),
    Kind("360p, 20 s", (640, 360), 20),
    Kind("360p, 10 s, uneven rate", (640, 360), 10, suffix="mkv", uneven=True),
    Kind("720p, 5 s", (1280, 720), 5),
    Kind("720p, 5 s, a keyframe a second", (1280, 720), 5, group=30),
    Kind("720p, 3 s, keyframes only", (1280, 720), 3, group=1),
    Kind("360p, 6 s, HEVC", (640, 360), 6, codec="libx265",
         options={"preset": "ultrafast", "x265-params": "log-level=none"}),
    Kind("360p, 6 s, MPEG-4 in AVI", (640, 360), 6, group=12, suffix="avi", codec="mpeg4", options={}),
)  # fmt: skip


def run(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Result]:
    """Each comparison as soon as it is made."""
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(KINDS):
            say(f"making {kind.what}")
            path = write(Path(folder) / f"{number}.{kind.suffix}", kind)
            for count in FRAMES:
                for peer, decode in PEERS.items():
                    say(f"{kind.what}, {count} frames, {peer}")
                    yield _compare(f"{kind.what}, {count} frames", peer, path, count, decode, rounds)


def _compare(what: str, peer: str, path: Path, count: int, decode: Decode, rounds: int) -> Result:
    with open_video(path) as reader:
        indices = centres(reader, count)
    mine, theirs = partial(ours, path, count), partial(decode, path, indices)
    try:
        frames = theirs()
    except (ImportError, OSError, RuntimeError, VlmError) as error:
        return Missing(what, peer, str(error).strip().splitlines()[0][:80])
    if wrong := sum(not _alike(a, b) for a, b in zip(mine(), frames, strict=True)):
        return Missing(what, peer, f"{wrong} of {count} frames are other ones")
    return alternate(what, peer, mine, theirs, rounds)


def ours(path: Path, count: int) -> Frames:
    with open_video(path) as reader:
        return reader.frames(centres(reader, count))


def in_order(path: Path, indices: Sequence[int]) -> Frames:
    """PyAV from the first frame on."""
    with open_video(path, "sequential", isolated=False) as reader:
        return reader.frames(indices)


def decord(path: Path, indices: Sequence[int]) -> Frames:
    library = importlib.import_module("decord")
    pixels_KHWC = library.VideoReader(str(path), ctx=library.cpu(0)).get_batch(list(indices)).asnumpy()
    return [Image.fromarray(pixels) for pixels in pixels_KHWC]


def torchcodec(path: Path, indices: Sequence[int], cores: int = 1) -> Frames:
    library: Any = importlib.import_module("torchcodec.decoders")
    decoder = library.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=cores, seek_mode="exact")
    return [Image.fromarray(pixels) for pixels in decoder.get_frames_at(list(indices)).data.numpy()]


Decode = Callable[[Path, Sequence[int]], Frames]
PEERS: dict[str, Decode] = {
    "PyAV in order": in_order,
    "decord": decord,
    "torchcodec": torchcodec,
    "torchcodec, all cores": partial(torchcodec, cores=threads(1 << 30)),
}


def _alike(a: Image.Image, b: Image.Image) -> bool:
    """The same frame, up to how libraries round colours."""
    return a.size == b.size and float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean()) < 0.5


def write(path: Path, kind: Kind) -> Path:
    """A clip that moves over photographs."""
    count, tick = kind.seconds * kind.rate, Fraction(1, 4 * kind.rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=kind.rate, options=dict(kind.options))
        stream.width, stream.height = kind.size
        stream.pix_fmt, stream.codec_context.gop_size, stream.codec_context.time_base = "yuv420p", kind.group, tick
        for number, picture in enumerate(_moving(count, kind.size)):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = 4 * number + (2 if kind.uneven and number % 2 else 0), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _moving(count: int, size: tuple[int, int]) -> Iterator[Image.Image]:
    (width, height), folder = size, assets.root() / "data" / "samples"
    large = [Image.open(folder / name).resize((width * 5 // 4, height * 5 // 4)) for name in PHOTOGRAPHS]
    for number in range(count):
        along = number % 100 / 100
        left, top = int((1 - along) * (width // 4)), int(along * (height // 4))
        yield large[number * len(large) // count].crop((left, top, left + width, top + height))

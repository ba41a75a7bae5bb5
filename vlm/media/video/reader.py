"""Videos: which frames there are, when each is shown, and the frames themselves, exact to the frame.

Letters: N frames of the file, K frames asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.files import name_text
from vlm.media.images import check_file
from vlm.media.video.backends import chosen, decoder_class
from vlm.media.video.backends.pyav import PyavDecoder
from vlm.media.video.isolated import IsolatedDecoder

DEADLINE = 30.0
"""Seconds without one packet read or frame decoded after which a decoder counts as hung."""


class VideoReader:
    """A video file: `times_N`, `duration`, `size`, `keyframes`, `notes` and `frames(indices)`.

    `times_N` is float64 [N], the presentation time of each frame in seconds (`pts * time_base`), in display order;
    `duration` the seconds from the first frame's start to the last one's end; `keyframes` the indices of those that
    were coded alone; `size` the (width, height) of the frames handed out: upright, square pixels, longest side at most
    `MAX_SIDE`; `notes` a line for each thing left out or changed of what the file holds.
    """

    def __init__(self, path: Path, decoder: PyavDecoder | IsolatedDecoder) -> None:
        self.path, self._decoder = path, decoder
        self.times_N = decoder.timeline.times_N
        self.duration = decoder.timeline.duration
        self.keyframes = decoder.timeline.keyframes

    @property
    def size(self) -> tuple[int, int]:
        return self._decoder.size()

    @property
    def notes(self) -> list[str]:
        return [f"{name_text(self.path)}: {note}" for note in self._decoder.notes()]

    def frames(self, indices: Sequence[int]) -> list[Image.Image]:
        """The frames at `indices` (any order, repeats allowed), each an RGB image of `size`.

        Raises `IndexError` for an index outside 0..N-1, and `BadInput` where the file does not decode that far.
        """
        wanted = self._checked(indices)
        found = {index: Image.fromarray(pixels) for index, pixels in self._decoder.frames(wanted)} if wanted else {}
        return [found[index] for index in indices]

    def thumbnails(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [K, 32, 32, 3]: the frames at `indices`, squeezed, for seeing what changes."""
        wanted = self._checked(indices)
        found = dict(self._decoder.thumbnails(wanted)) if wanted else {}
        return np.stack([found[index] for index in indices]) if found else np.zeros((0, 32, 32, 3), np.uint8)

    def _checked(self, indices: Iterable[int]) -> list[int]:
        wanted = sorted({int(index) for index in indices})
        for index in wanted[:1] + wanted[-1:]:
            if not 0 <= index < len(self.times_N):
                raise IndexError(f"{self.path}: frame {index} of {len(self.times_N)}")
        return wanted

    def close(self) -> None:
        self._decoder.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_video(
    path: str | Path, backend: str = "auto", *, isolated: bool = True, deadline: float = DEADLINE
) -> VideoReader:
    """A reader of the video at `path`.

    `auto` is exact for every file. Decoding happens in a process of its own that is kept for the next clip, so that a
    file that hangs or crashes a decoder is one line of error and what a decoder leaks is given back; it costs about a
    millisecond a large frame. `deadline` is how many seconds it may stay silent. `isolated=False` decodes here.

    Raises `BadInput`, one line, where the file is missing, is not a video, is cut short, has no frames, or stops the
    decoder.
    """
    backend_name = chosen(backend)
    if deadline <= 0:
        raise BadInput(f"deadline: expected seconds above 0, got {deadline:g}")
    path = Path(path)
    check_file(path, "a video file")
    if isolated:
        return VideoReader(path, IsolatedDecoder(path, backend_name, deadline))
    return VideoReader(path, decoder_class(backend_name)(path))

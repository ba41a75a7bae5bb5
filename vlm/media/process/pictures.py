"""Pictures decoded in processes of their own: a stranger's file can hang, crash or fill one of them, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlm.errors import BadInput
from vlm.media.process.messages import Message
from vlm.media.process.supervisor import Ended, Pool

Picture = NDArray[np.uint8]
"""[H, W, 3]."""
COPIES = 16
"""Bytes a pixel that decoding holds at its most: rows as they are decoded, RGB of them, and the array that is sent."""


class Resize(NamedTuple):
    """Columns, rows, and one of Pillow's filters by its name (`bicubic`)."""

    width: int
    height: int
    filter: str

    @classmethod
    def square(cls, squashed: tuple[int, str] | None) -> Resize | None:
        """To a side, by a filter."""
        return None if squashed is None else cls(squashed[0], squashed[0], squashed[1])


@dataclass(frozen=True)
class Decoded:
    pixels: Picture
    thumbnail: bytes | None
    """A small JPEG of the picture as it was before it was resized."""
    notes: tuple[str, ...] = ()
    """What was left out or changed of what the file holds, a line each."""


class PictureDecoder:
    """For any number of threads, a process each. Pictures of at most `pixels`, within `seconds` each.

    Raises `BadInput` for what is no picture, or none within the limits.
    """

    def __init__(self, pixels: int, seconds: float) -> None:
        self._pixels, self._seconds = pixels, seconds
        self._pool = Pool("vlm.media.process.pictures_worker")

    @property
    def deaths(self) -> int:
        """Processes that a picture ended."""
        return self._pool.deaths

    def count(self, content: bytes) -> int:
        """Pixels that decoding would make, by the picture's header: nothing is decoded."""
        ((about, _),) = self._ask(content, {"count": True})
        return int(about["count"])

    def decode(self, content: bytes) -> Picture:
        """The picture upright in RGB `[H, W, 3]`."""
        return self.decoded(content).pixels

    def decoded(self, content: bytes, resize: Resize | None = None, *, thumbnail: bool = False) -> Decoded:
        """As `decode`, resized there too, which saves the memory and the way of the whole."""
        (about, pixels), *rest = self._ask(content, {"resize": resize, "thumbnail": thumbnail})
        assert pixels is not None
        small = rest[0][1].tobytes() if rest and rest[0][1] is not None else None
        return Decoded(pixels, small, tuple(about["notes"]))

    def close(self) -> None:
        self._pool.close()

    def _ask(self, content: bytes, request: dict[str, Any]) -> list[Message]:
        encoded = np.frombuffer(content, np.uint8)
        try:
            # Copies: the memory is the next picture's too.
            answers = self._pool.ask({"pixels": self._pixels, **request}, self._seconds, encoded)
            return [(about, None if array is None else np.array(array)) for about, array in answers]
        except Ended as end:
            how = f"took longer than {end.silence:g} s" if end.silence else "ended its decoder"
            raise BadInput(f"expected an image that decodes, got one that {how}") from None

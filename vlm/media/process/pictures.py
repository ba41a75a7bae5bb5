"""Pictures decoded in processes of their own: a stranger's file can hang, crash or fill one of them, nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlm.errors import BadInput
from vlm.media.process.supervisor import Ended, Pool

Picture = NDArray[np.uint8]
"""[H, W, 3]."""


class PictureDecoder:
    """For any number of threads, a process each. Pictures of at most `pixels`, within `seconds` each."""

    def __init__(self, pixels: int, seconds: float) -> None:
        self._pixels, self._seconds = pixels, seconds
        self._pool = Pool("vlm.media.process.pictures_worker")

    @property
    def deaths(self) -> int:
        """Processes that a picture ended."""
        return self._pool.deaths

    def decode(self, content: bytes) -> Picture:
        """The picture upright in RGB `[H, W, 3]`. Raises `BadInput` for what is none, or none within the limits."""
        encoded = np.frombuffer(content, np.uint8)
        try:
            (picture,) = [
                np.array(pixels)  # the memory is the next picture's too
                for _, pixels in self._pool.ask({"pixels": self._pixels}, self._seconds, encoded)
            ]
        except Ended as end:
            how = f"took longer than {end.silence:g} s" if end.silence else "ended its decoder"
            raise BadInput(f"expected an image that decodes, got one that {how}") from None
        return picture

    def close(self) -> None:
        self._pool.close()

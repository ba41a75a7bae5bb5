"""Clips decoded in processes of their own: one that hangs or crashes its decoder is one line of error."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput
from vlm.media.process.messages import Message
from vlm.media.process.supervisor import Ended, Pool
from vlm.media.video.timeline import Timeline

_pool = Pool("vlm.media.video.worker")


class IsolatedDecoder:
    """What `PyavDecoder` gives, from another process. `deadline` is in seconds without a packet or frame."""

    def __init__(self, path: Path, backend: str, deadline: float) -> None:
        self._about, self._deadline = {"path": str(path), "backend": backend}, deadline
        (self.timeline,) = [
            Timeline(np.array(times_N), about["duration"], about["keyframes"])  # the memory is the next asker's too
            for about, times_N in self._ask("timeline")
        ]

    def size(self) -> tuple[int, int]:
        ((about, _),) = self._ask("size")
        return about["size"][0], about["size"][1]

    def notes(self) -> list[str]:
        ((about, _),) = self._ask("notes")
        return list(about["notes"])

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The pixels are valid until the next request."""
        return self._pictures("frames", wanted)

    def thumbnails(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        return ((index, pixels.copy()) for index, pixels in self._pictures("thumbnails", wanted))

    def close(self) -> None:
        """The process stays for the next file."""

    def _pictures(self, do: str, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for message, pixels in self._ask(do, indices=list(wanted)):
            assert pixels is not None
            yield message["index"], pixels

    def _ask(self, do: str, **more: Any) -> Iterator[Message]:
        request = {**self._about, "do": do, "folder": os.getcwd(), **more}
        try:
            yield from _pool.ask(request, self._deadline)
        except Ended as end:
            how = f"one that ended the decoder ({end})"
            if end.silence:
                how = f"no frame for {end.silence:g} s: its decoder hung and was stopped"
            raise BadInput(f"{request['path']}: expected a video that decodes, got {how}") from None

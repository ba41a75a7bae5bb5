"""Frames through decord, for files whose container is plain.

decord is wrong where the rate varies, an edit list cuts or a group of pictures is open, cannot turn a frame upright,
and fills its memory for as long as it is open: such files are refused, and a reader lives for one call.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

import numpy as np

from vlm.errors import BadInput
from vlm.media.video.backends.pyav import AT_ONCE, PyavDecoder, threads
from vlm.media.video.container import line


class DecordDecoder(PyavDecoder):
    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        decord = importlib.import_module("decord")
        (width, height), times_N = self.size(), self.timeline.times_N
        self._check_safe()
        indices = sorted(set(wanted))
        try:
            reader = decord.VideoReader(
                str(self.path.resolve()),
                ctx=decord.cpu(0),
                width=width,
                height=height,
                num_threads=threads(width * height),
            )
            if len(reader) != len(times_N):
                raise BadInput(
                    f"{self.path}: expected {len(times_N)} frames, decord got {len(reader)}; use backend='pyav'"
                )
            starts = reader.get_frame_timestamp(indices)[:, 0]
            if float(np.abs(starts - times_N[indices]).max()) > 1e-3:
                raise BadInput(f"{self.path}: decord has other times for its frames; use backend='pyav'")
            for at in range(0, len(indices), AT_ONCE):
                self.alive()
                some = indices[at : at + AT_ONCE]
                yield from zip(some, reader.get_batch(some).asnumpy(), strict=True)
        except (decord.DECORDError, RuntimeError) as error:
            raise BadInput(f"{self.path}: expected a video decord can read, got: {line(error)}") from None

    def _check_safe(self) -> None:
        square = (self._stream.sample_aspect_ratio or 1) == 1
        if not self.timeline.steady or not square or not self._convert.plain or self._left_out:
            codec = self._stream.codec_context.name
            raise BadInput(
                f"{self.path}: backend 'decord' is right only for H.264 and MPEG-4 (this is {codec}) of constant rate, "
                "with square pixels, one stream, without edit list, rotation, high dynamic range and open groups of "
                "pictures; use 'pyav'"
            )

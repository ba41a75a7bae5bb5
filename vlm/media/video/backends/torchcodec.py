"""Frames through torchcodec in its exact mode; it needs the FFmpeg libraries of the system."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.media.video.backends.pyav import AT_ONCE, PyavDecoder, threads
from vlm.media.video.container import line


class TorchcodecDecoder(PyavDecoder):
    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        (width, height), times_N = self.size(), self.timeline.times_N
        indices = sorted(set(wanted))
        if not self._convert.plain:
            raise BadInput(
                f"{self.path}: backend 'torchcodec' is right only without rotation and high dynamic range; use 'pyav'"
            )
        try:
            decoders = importlib.import_module("torchcodec.decoders")
            decoder = decoders.VideoDecoder(
                str(self.path.resolve()),
                stream_index=self._stream.index,
                dimension_order="NHWC",
                num_ffmpeg_threads=threads(width * height),
                seek_mode="exact",
            )
            if len(decoder) != len(times_N):
                raise BadInput(
                    f"{self.path}: expected {len(times_N)} frames, torchcodec got {len(decoder)}; use backend='pyav'"
                )
            for at in range(0, len(indices), AT_ONCE):
                self.alive()
                some = indices[at : at + AT_ONCE]
                batch = decoder.get_frames_at(some)
                for index, time, pixels_HWC in zip(some, batch.pts_seconds.tolist(), batch.data.numpy(), strict=True):
                    if abs(time - times_N[index]) > 1e-6:
                        raise BadInput(
                            f"{self.path}: expected frame {index} at {times_N[index]:.3f} s, torchcodec got one at "
                            f"{time:.3f} s; use backend='pyav'"
                        )
                    yield index, _resized(pixels_HWC, (width, height))
        except (RuntimeError, ImportError, OSError, ValueError) as error:
            raise BadInput(f"{self.path}: expected a video torchcodec can read, got: {line(error)}") from None


def _resized(pixels_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pixels_HWC.shape[1::-1] == size:
        return pixels_HWC
    return np.asarray(Image.fromarray(pixels_HWC).resize(size, Image.Resampling.BILINEAR))

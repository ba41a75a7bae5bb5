"""Which frames of a video a model sees, and when each was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.video.reader import VideoReader, open_video


@dataclass(frozen=True)
class Clip:
    """Frames of one video in order of time; `times[i]` is frame i's own presentation time in seconds."""

    frames: list[Image.Image]
    times: list[float]
    source: str
    duration: float | None = None
    """Of the whole video in seconds, where it is known."""


def nearest(times_N: np.ndarray, wanted_K: np.ndarray) -> np.ndarray:
    """The index [K] of the frame nearest to each wanted time; `times_N` ascends, and a tie takes the earlier frame."""
    right_K = np.clip(np.searchsorted(times_N, wanted_K), 1, max(1, len(times_N) - 1))
    left_K = right_K - 1
    if len(times_N) == 1:
        return np.zeros(len(wanted_K), dtype=np.int64)
    return np.where(wanted_K - times_N[left_K] <= times_N[right_K] - wanted_K, left_K, right_K)


def uniform(reader: VideoReader, n: int) -> Clip:
    """`n` frames: the one nearest to the centre of each of `n` equal segments of the video.

    Always `n` of them; a video of fewer frames gives some twice. Raises `BadInput` for n < 1.
    """
    if n < 1:
        raise BadInput(f"frames per clip: expected at least 1, got {n}")
    centres_K = reader.times_N[0] + (np.arange(n) + 0.5) * reader.duration / n
    indices = [int(index) for index in nearest(reader.times_N, centres_K)]
    return Clip(
        frames=reader.frames(indices),
        times=[float(reader.times_N[index]) for index in indices],
        source=str(reader.path),
        duration=reader.duration,
    )


def load_clip(path: str | Path, n: int = 4) -> Clip:
    """`n` frames spread evenly over the video at `path`. Raises `BadInput` where it cannot be read as a video."""
    with open_video(path) as reader:
        clip = uniform(reader, n)
    return Clip(clip.frames, clip.times, source=str(path), duration=clip.duration)

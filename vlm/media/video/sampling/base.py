"""What every way of sampling shares: a config that picks frames by what is known of a clip.

Letters: N frames of the file, K frames picked.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vlm.config import Config
from vlm.errors import BadInput

PROBES = 256
"""The most frames looked at, small, to see where a clip changes."""


class Frames(Protocol):
    """What a picker may know of a clip; `VideoReader` is one."""

    times_N: np.ndarray
    duration: float
    keyframes: list[int]

    def thumbnails(self, indices: list[int]) -> np.ndarray: ...


class Sampler(Config):
    """A way of sampling; each has a field `kind`, whose value is its name in `SAMPLERS`.

    `pick` gives indices in ascending order; a clip of few frames may give some twice.
    """

    def pick(self, clip: Frames, rng: np.random.Generator | None = None) -> list[int]:
        """`rng` is given while training, to those that vary."""
        raise NotImplementedError

    def fitted(self, tokens_per_frame: int) -> Sampler:
        """The same for a model of so many visual tokens a frame."""
        return self

    def with_frames(self, frames: int) -> Sampler:
        """The same with another number of frames, or at most so many. Raises `BadInput` for less than one."""
        if frames < 1:
            raise BadInput(f"frames of a clip: expected at least 1, got {frames}")
        return self.model_copy(update={"frames": frames})


def nearest(times_N: np.ndarray, wanted_K: np.ndarray) -> list[int]:
    """The indices of the frames nearest to each wanted time; `times_N` ascends, and a tie takes the earlier frame."""
    if len(times_N) == 1:
        return [0] * len(wanted_K)
    right_K = np.clip(np.searchsorted(times_N, wanted_K), 1, len(times_N) - 1)
    left_K = right_K - 1
    picked_K = np.where(wanted_K - times_N[left_K] <= times_N[right_K] - wanted_K, left_K, right_K)
    return [int(index) for index in picked_K]


def centres(clip: Frames, count: int) -> list[int]:
    """The frames nearest to the centres of `count` equal segments of time."""
    return nearest(clip.times_N, clip.times_N[0] + (np.arange(count) + 0.5) * clip.duration / count)


def probes(clip: Frames, most: int = PROBES) -> tuple[list[int], np.ndarray]:
    """At most `most` frames spread evenly over the clip, and how far each is from the one before it.

    The distance [K] is the mean absolute difference of the small frames' colours, 0 to 255; the first one's is 0.
    """
    few = len(clip.times_N) <= most
    indices = list(range(len(clip.times_N))) if few else sorted(set(centres(clip, most)))
    small_KHWC = clip.thumbnails(indices).astype(np.int16)
    change_K = np.abs(np.diff(small_KHWC, axis=0)).mean(axis=(1, 2, 3))
    return indices, np.concatenate([[0.0], change_K])


def thin(indices: list[int], most: int) -> list[int]:
    """At most `most` of them, spread evenly."""
    if len(indices) <= most:
        return indices
    return [indices[int((place + 0.5) * len(indices) / most)] for place in range(most)]

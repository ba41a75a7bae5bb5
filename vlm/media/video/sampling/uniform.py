"""Evenly in time."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt

from vlm.media.video.sampling.base import Frames, Sampler, centres


class Uniform(Sampler):
    """The frame nearest to the centre of each of `frames` equal segments of time; always so many."""

    kind: Literal["uniform"] = "uniform"
    frames: PositiveInt = 4

    def pick(self, clip: Frames, rng: np.random.Generator | None = None) -> list[int]:
        return centres(clip, self.frames)

"""By frames a second."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from vlm.media.video.sampling.base import Frames, Sampler, centres


class Rate(Sampler):
    """`fps` frames a second, evenly in time; at least one, and of a long clip `frames` over its whole length."""

    kind: Literal["rate"] = "rate"
    fps: PositiveFloat = 1.0
    frames: PositiveInt = 64

    def pick(self, clip: Frames, rng: np.random.Generator | None = None) -> list[int]:
        return centres(clip, min(self.frames, max(1, round(clip.duration * self.fps))))

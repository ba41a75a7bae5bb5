"""By segments (Wang et al. 2016, Temporal Segment Networks, section 3.1)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt

from vlm.media.video.sampling.base import Frames, Sampler, centres, nearest


class Segments(Sampler):
    """One frame of each of `frames` equal segments: its centre, in training anywhere in it, as the generator says."""

    kind: Literal["segments"] = "segments"
    frames: PositiveInt = 8

    def pick(self, clip: Frames, rng: np.random.Generator | None = None) -> list[int]:
        if rng is None:
            return centres(clip, self.frames)
        places_K = (np.arange(self.frames) + rng.random(self.frames)) / self.frames
        return nearest(clip.times_N, clip.times_N[0] + places_K * clip.duration)

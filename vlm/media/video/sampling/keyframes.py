"""By the frames that were coded alone, which are the cheapest to decode."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt

from vlm.media.video.sampling.base import Frames, Sampler, thin


class Keyframes(Sampler):
    """The clip's keyframes, at most `frames` of them, spread evenly. Encoders put them where a shot begins."""

    kind: Literal["keyframes"] = "keyframes"
    frames: PositiveInt = 16

    def pick(self, clip: Frames, rng: np.random.Generator | None = None) -> list[int]:
        return thin(clip.keyframes or [0], self.frames)

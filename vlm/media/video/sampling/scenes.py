"""By scene changes: where one small frame differs much from the next."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from vlm.media.video.sampling.base import Frames, Sampler, probes, thin


class Scenes(Sampler):
    """The middle frame of each scene, at most `frames`, spread evenly over the scenes.

    A scene begins where the small frames differ by more than `threshold` (mean absolute difference of colours, 0 to
    255; PySceneDetect's content detector measures alike and cuts at 27). Long clips are looked at in 256 places, so a
    scene shorter than the steps between these may be missed.
    """

    kind: Literal["scenes"] = "scenes"
    frames: PositiveInt = 16
    threshold: PositiveFloat = 27.0

    def pick(self, clip: Frames, rng: np.random.Generator | None = None) -> list[int]:
        indices, change_K = probes(clip)
        starts = [0, *(int(place) for place in (change_K > self.threshold).nonzero()[0])]
        middles = [(start + end - 1) // 2 for start, end in zip(starts, [*starts[1:], len(indices)], strict=True)]
        return thin([indices[middle] for middle in middles], self.frames)

"""By content, under a budget of tokens: more frames where the picture changes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt, model_validator

from vlm.config import parse
from vlm.errors import BadInput
from vlm.media.video.sampling.base import Frames, Sampler, probes


class Adaptive(Sampler):
    """As many frames as `tokens` pay for at `tokens_per_frame`, at equal steps of change.

    Change adds up along the clip, with `floor` of its mean for time that passes without any; the frames stand at the
    centres of equal shares of the sum. A still clip is thus sampled evenly, and a clip whose second half moves gives
    that half most frames. No frame is taken twice.
    """

    kind: Literal["adaptive"] = "adaptive"
    tokens: PositiveInt = 256
    tokens_per_frame: PositiveInt | None = None
    """Visual tokens of a frame; those of the model that looks, where it is not said."""
    frames: PositiveInt | None = None
    """At most so many, whatever the tokens pay for."""
    floor: NonNegativeFloat = 0.5

    @model_validator(mode="after")
    def _pays(self) -> Adaptive:
        if self.tokens_per_frame is not None and self.tokens < self.tokens_per_frame:
            raise ValueError(f"{self.tokens} tokens do not pay for one frame of {self.tokens_per_frame}")
        return self

    def fitted(self, tokens_per_frame: int) -> Sampler:
        if self.tokens_per_frame is not None:
            return self
        return parse(Adaptive, {**self.model_dump(), "tokens_per_frame": tokens_per_frame}, "sampling adaptive")

    def pick(self, clip: Frames, rng: np.random.Generator | None = None) -> list[int]:
        if self.tokens_per_frame is None:
            raise BadInput("sampling adaptive: expected tokens_per_frame, which is not known without a model")
        indices, change_K = probes(clip)
        count = min(self.tokens // self.tokens_per_frame, self.frames or len(indices), len(indices))
        mean = float(change_K.mean())
        weight_K = _at_most_a_share(change_K + (self.floor * mean if mean > 0 else 1.0), count)
        reached_K = np.cumsum(weight_K)
        places = np.searchsorted(reached_K, (np.arange(count) + 0.5) * reached_K[-1] / count)
        return [indices[int(place)] for place in places]


def _at_most_a_share(weight_K: np.ndarray, count: int) -> np.ndarray:
    """The largest weights lowered until none is more than a `count`-th of all: one frame is enough for a cut."""
    descending = np.sort(weight_K)[::-1]
    rest = float(weight_K.sum())
    for lowered in range(count):
        cap = rest / (count - lowered)
        if descending[lowered] <= cap:
            break
        rest -= float(descending[lowered])
    return np.minimum(weight_K, cap)

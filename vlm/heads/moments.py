"""When in a clip: the stretches of time whose frames are nearest to a text.

F frames, S shared width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.media.video.sampling.rate import Rate

if TYPE_CHECKING:  # torch would come with it, and arithmetic on times needs none
    from vlm.vectors import Vectors

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Quantiles of a clip's similarities at which it is cut into stretches."""


WATCHED = Rate(fps=2.0, frames=150)
"""Which frames are looked at to find a moment: by `Model.moments`, the server, and benchmarks whose card says none."""


@dataclass(frozen=True)
class Moment:
    """A stretch of a video, in seconds of its presentation time."""

    start: float
    end: float
    score: float


def moments_of(
    clip: Media,
    texts: Sequence[str],
    embed_images: Callable[[Sequence[Media]], Vectors],
    embed_texts: Callable[[Sequence[str]], Vectors],
) -> list[list[Moment]]:
    """For each text the moments of `clip` that are nearest to it. Raises `BadInput` for a picture."""
    if not clip.is_clip or not clip.timed:
        raise BadInput(f"{clip.source}: expected a video, got a picture, which has no time")
    vectors_FS = embed_images([Media((frame,)) for frame in clip.frames])
    seconds = clip.duration if clip.duration is not None and clip.times[-1] <= clip.duration else None
    return [
        [Moment(*found) for found in moments(vectors_FS @ text, clip.times, seconds)] for text in embed_texts(texts)
    ]


def moments(
    similarity_F: ArrayLike, times_F: ArrayLike, duration: float | None = None, *, most: int = 10
) -> list[tuple[float, float, float]]:
    """At most `most` windows (start, end in seconds, score), best first.

    A frame stands for the time up to halfway to its neighbours; the first and the last for everything before and after
    them, from 0 to `duration`, or for as much as they stand for on the other side where that is not given. At each
    level the frames at or above it fall into stretches; a stretch's score is the mean similarity inside it less the
    mean outside.
    """
    similarity, times = np.asarray(similarity_F, np.float64), np.asarray(times_F, np.float64)
    if not len(similarity):
        return []
    between = (times[1:] + times[:-1]) / 2
    first, last = 0.0, duration
    if last is None:
        first, last = (2 * times[0] - between[0], 2 * times[-1] - between[-1]) if len(between) else (times[0], times[0])
    edges = np.concatenate([[first], between, [last]])
    found: dict[tuple[int, int], float] = {(0, len(times)): 0.0}
    for level in np.quantile(similarity, LEVELS):
        above = np.concatenate([[0], (similarity >= level).astype(int), [0]])
        starts, ends = (np.diff(above) == 1).nonzero()[0], (np.diff(above) == -1).nonzero()[0]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            outside = np.concatenate([similarity[:start], similarity[end:]])
            if len(outside):
                found[start, end] = float(similarity[start:end].mean() - outside.mean())
    best = sorted(found.items(), key=lambda item: -item[1])[:most]
    return [(float(edges[start]), float(edges[end]), score) for (start, end), score in best]

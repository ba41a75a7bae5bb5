"""When in a clip: the stretches of time whose frames are nearest to a text.

F frames, S shared width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Quantiles of a clip's similarities at which it is cut into stretches."""


def moments(
    similarity_F: ArrayLike, times_F: ArrayLike, duration: float, *, most: int = 10
) -> list[tuple[float, float, float]]:
    """At most `most` windows (start, end in seconds, score), best first.

    A frame stands for the time up to halfway to its neighbours. At each level the frames at or above it fall into
    stretches; a stretch's score is the mean similarity inside it less the mean outside.
    """
    similarity, times = np.asarray(similarity_F, np.float64), np.asarray(times_F, np.float64)
    if not len(similarity):
        return []
    edges = np.concatenate([[0.0], (times[1:] + times[:-1]) / 2, [duration]])
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

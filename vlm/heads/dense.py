"""What happens when in a clip: its time cut into segments, and a caption of each from its own frames.

N frames of the file, K small frames looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np

from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.media.subtitles import Cue
from vlm.media.video.reader import open_video
from vlm.media.video.sampling.base import PROBES, Frames, Sampler, probes
from vlm.media.video.sampling.scenes import Scenes

SHORTEST, LONGEST = 1.0, 10.0
"""Seconds: a scene that is shorter is part of the one before it, a longer one is cut into equal parts."""
A_SECOND, MOST = 2, 2048
"""Small frames looked at to find scene changes: so many a second, and never more than `MOST`."""
MOST_SEGMENTS = 10_000


class Part:
    """Of a clip the frames `first` up to `last`, which is the one behind them, as a picker of frames sees a clip."""

    def __init__(self, clip: Frames, first: int, last: int, duration: float):
        self.clip, self.first, self.last, self.duration = clip, first, last, duration
        self.times_N = clip.times_N[first:last]
        self.keyframes = [index - first for index in clip.keyframes if first <= index < last]

    def thumbnails(self, indices: list[int]) -> np.ndarray:
        return self.clip.thumbnails([self.first + index for index in indices])


def segments(clip: Frames, window: float | None = None) -> list[tuple[float, float]]:
    """(start, end) in seconds from the clip's beginning, without gap or overlap, from 0 to its duration: the scenes, or
    windows of `window` seconds, of which the last may be shorter. Raises `BadInput` for too many."""
    if window is not None and not (window > 0 and clip.duration / window <= MOST_SEGMENTS):
        raise BadInput(
            f"window: expected seconds above {clip.duration / MOST_SEGMENTS:.3g} for this clip, got {window:g}"
        )
    if window is not None:
        edges = [place * window for place in range(_pieces(clip.duration, window))]
    else:
        edges = []
        scenes = _scenes(clip)
        for start, end in zip(scenes, [*scenes[1:], clip.duration], strict=True):
            edges += np.linspace(start, end, _pieces(end - start, LONGEST), endpoint=False).tolist()
    return list(pairwise([*edges, clip.duration]))


def dense_captions(
    path: str | Path,
    caption: Callable[[Sequence[Media]], Sequence[str]],
    sampling: Sampler,
    *,
    window: float | None = None,
    batch: int = 8,
    check: Callable[[Media], object] = lambda media: None,
    opened: Callable[[Media], object] = lambda media: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Cue]:
    """A caption of each of `segments`, of the frames that `sampling` picks of it.

    `opened` and `check` are called with what is captioned. Raises `BadInput` for what is no clip.
    """
    with open_video(path) as reader:
        parts = segments(reader, window)
        found: list[Cue] = []
        for begin in range(0, len(parts), batch):
            some = parts[begin : begin + batch]
            media = []
            for start, end in some:
                part = part_of(reader, start, end)
                indices = [part.first + index for index in sampling.pick(part)]
                times = tuple(float(reader.times_N[index]) for index in indices)
                media.append(
                    Media(tuple(reader.frames(indices)), times, str(path), tuple(reader.notes), reader.duration)
                )
                opened(media[-1])
                check(media[-1])
            found += [Cue(*times, text) for times, text in zip(some, caption(media), strict=True)]
            advance(len(found), len(parts))
    return found


def part_of(clip: Frames, start: float, end: float) -> Part:
    """The frames shown in a segment; where none begins in it, the one that is still shown."""
    times_N = clip.times_N - clip.times_N[0]
    first, last = np.searchsorted(times_N, [start - 1e-6, end - 1e-6])
    first = min(int(first), len(times_N) - 1)
    if last <= first:
        first = max(0, int(last) - 1)
    return Part(clip, first, max(int(last), first + 1), end - start)


def _pieces(duration: float, longest: float) -> int:
    """Into how many no longer than this it is cut, but for a rounding."""
    return max(1, ceil(duration / longest - 1e-6))


def _scenes(clip: Frames) -> list[float]:
    """Where scenes begin, the first at 0."""
    most = int(min(max(PROBES, A_SECOND * clip.duration), MOST))
    indices, change_K = probes(clip, most)
    edges = [0.0]
    for place in (change_K > Scenes().threshold).nonzero()[0]:
        at = float(clip.times_N[indices[place]] - clip.times_N[0])
        if at - edges[-1] >= SHORTEST and clip.duration - at >= SHORTEST:
            edges.append(at)
    return edges

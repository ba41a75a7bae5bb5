"""Timed captions: segments that cover a clip, each captioned from its own frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from vlm.assets import root
from vlm.errors import BadInput
from vlm.heads.dense import LONGEST, SHORTEST, dense_captions, part_of, segments
from vlm.media.open import Media
from vlm.media.video.sampling import Keyframes, Uniform

SAMPLES = root() / "data" / "samples"


class Painted:
    """A clip of scenes of one brightness each: (seconds, brightness); 10 frames a second, the first at 5 s."""

    def __init__(self, *scenes: tuple[float, int]):
        self.bright = [value for seconds, value in scenes for _ in range(round(seconds * 10))]
        self.times_N = 5 + np.arange(len(self.bright)) / 10
        self.duration = len(self.bright) / 10
        self.keyframes = [0]

    def thumbnails(self, indices: list[int]) -> np.ndarray:
        return np.stack([np.full((2, 2, 3), self.bright[index], np.uint8) for index in indices])


def covers(found: Sequence[tuple[float, float]], duration: float) -> None:
    assert found[0][0] == 0
    assert found[-1][1] == duration
    assert all(start < end for start, end in found)
    assert all(one[1] == other[0] for one, other in pairwise(found))


def test_scenes_are_segments() -> None:
    clip = Painted((3, 0), (4, 200), (2.5, 90))
    assert segments(clip) == [(0.0, pytest.approx(3)), (pytest.approx(3), pytest.approx(7)), (pytest.approx(7), 9.5)]


def test_short_scenes_join_and_long_ones_are_cut() -> None:
    found = segments(Painted((2, 0), (0.3, 200), (0.3, 0), (25, 100), (0.4, 200)))
    covers(found, 28.0)
    assert all(SHORTEST - 1e-6 <= end - start <= LONGEST + 1e-6 for start, end in found)
    assert found[0] == (0.0, pytest.approx(2))


@pytest.mark.parametrize(("window", "count"), [(2.0, 5), (2.5, 4), (3.0, 4), (100.0, 1), (0.1, 100)])
def test_windows(window: float, count: int) -> None:
    found = segments(Painted((10, 0)), window)
    covers(found, 10.0)
    assert len(found) == count
    assert all(end - start == pytest.approx(window) for start, end in found[:-1])


@pytest.mark.parametrize("seed", range(5))
def test_segments_cover_whatever_is_shown(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clip = Painted(*[(float(rng.choice([0.1, 0.5, 2, 30])), int(rng.integers(255))) for _ in range(12)])
    covers(segments(clip), clip.duration)


@pytest.mark.parametrize("window", [0.0, -1.0, 1e-6, float("nan")])
def test_a_window_that_cannot_be(window: float) -> None:
    with pytest.raises(BadInput, match="window: expected seconds above"):
        segments(Painted((10, 0)), window)


def test_a_segment_has_its_own_frames_alone() -> None:
    clip = Painted((3, 0), (4, 200))
    parts = [part_of(clip, start, end) for start, end in segments(clip)]
    assert [(part.first, part.last) for part in parts] == [(0, 30), (30, 70)]
    for part in parts:
        assert all(0 <= index < part.last - part.first for index in Uniform().pick(part))
        assert part.thumbnails([0]).max() == part.thumbnails([part.last - part.first - 1]).max()
    between = part_of(clip, 0.42, 0.48)  # no frame begins here; the one before is still shown
    assert (between.first, between.last) == (4, 5)


@pytest.mark.parametrize("sampling", [Uniform(frames=2), Keyframes()])
def test_each_scene_of_a_file_is_captioned_from_its_frames(sampling: Uniform | Keyframes) -> None:
    seen: list[Media] = []

    def caption(media: Sequence[Media]) -> list[str]:
        seen.extend(media)
        return [f"caption {len(seen) - len(media) + place}" for place in range(len(media))]

    found = dense_captions(SAMPLES / "temple_and_flower.mp4", caption, sampling, batch=1)
    assert [cue.text for cue in found] == ["caption 0", "caption 1"]
    covers([(cue.start, cue.end) for cue in found], found[-1].end)
    for cue, media in zip(found, seen, strict=True):
        assert media.frames
        assert all(cue.start - 1e-6 <= time < cue.end for time in media.times)
    first, second = (np.asarray(media.frames[0], float) for media in seen)
    assert np.abs(first - second).mean() > 27


def test_a_picture_has_no_scenes() -> None:
    with pytest.raises(BadInput, match="expected a video"):
        dense_captions(Path(SAMPLES / "cat.jpg"), lambda media: [], Uniform())

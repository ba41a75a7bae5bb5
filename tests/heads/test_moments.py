"""Stretches of time: where similarity is high, in seconds, best first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from vlm.assets import root
from vlm.config import read_yaml
from vlm.datasets.examples import load_card
from vlm.errors import BadInput
from vlm.heads.moments import moments, moments_of
from vlm.media.open import Media
from vlm.media.video.reader import open_video
from vlm.metrics.video import temporal_iou


def test_the_best_stretch_is_the_one_that_stands_out() -> None:
    similarity = [0.1, 0.1, 0.1, 0.8, 0.9, 0.8, 0.1, 0.1, 0.1, 0.1]
    times = np.arange(10) * 2 + 1.0
    best, *others = moments(similarity, times, 20.0)
    assert best[:2] == (6.0, 12.0)
    assert best[2] == pytest.approx(np.mean([0.8, 0.9, 0.8]) - 0.1)
    assert all(found[2] <= best[2] for found in others)
    assert all(0 <= start < end <= 20 for start, end, _ in [best, *others])


@pytest.mark.parametrize("most", [1, 3, 10])
def test_at_most_so_many(most: int) -> None:
    similarity = np.random.default_rng(0).random(60)
    assert len(moments(similarity, np.arange(60.0), 60.0, most=most)) <= most


def test_a_still_clip_is_one_stretch() -> None:
    assert moments([0.5] * 4, [0.5, 1.5, 2.5, 3.5], 4.0) == [(0.0, 4.0, 0.0)]


def test_no_frames_no_stretches() -> None:
    assert moments([], [], 4.0) == []


def test_without_a_duration_the_ends_are_as_far_as_the_middles() -> None:
    assert moments([0.5, 0.5], [10.5, 11.5])[0] == (10.0, 12.0, 0.0)


def colour_of(media: Sequence[Media]) -> np.ndarray:
    rows = [np.asarray(item.frames[0], np.float32)[8, 8] for item in media]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def words_of(texts: Sequence[str]) -> np.ndarray:
    return np.stack([np.eye(3, dtype=np.float32)["red green blue".split().index(text)] for text in texts])


def clip_of(*colours: str, start: float = 0.0, duration: float | None = None) -> Media:
    frames = tuple(Image.new("RGB", (16, 16), colour) for colour in colours)
    return Media(frames, tuple(start + i + 0.5 for i in range(len(frames))), "clip.mp4", duration=duration)


def test_each_text_has_its_own_spans_in_seconds() -> None:
    clip = clip_of("red", "red", "lime", "lime", "lime", "blue", duration=6.0)
    red, green, blue = (found[0] for found in moments_of(clip, ["red", "green", "blue"], colour_of, words_of))
    assert (red.start, red.end) == (0.0, 2.0)
    assert (green.start, green.end) == (2.0, 5.0)
    assert (blue.start, blue.end) == (5.0, 6.0)
    assert red.score == pytest.approx(1.0)


def test_a_clip_that_starts_late_keeps_its_times() -> None:
    clip = clip_of("red", "lime", "lime", "red", start=20.0, duration=4.0)
    ((best, *_),) = moments_of(clip, ["green"], colour_of, words_of)
    assert (best.start, best.end) == (21.0, 23.0)


def test_a_picture_has_no_moments() -> None:
    with pytest.raises(BadInput, match="expected a video, got a picture"):
        moments_of(Media((Image.new("RGB", (16, 16)),), source="a.png"), ["red"], colour_of, words_of)


def test_the_timed_samples_are_what_they_say() -> None:
    """The photographs of a clip fill it one after another, and its file is as long as the lines say."""
    data = root() / "data"
    captions = {row["caption"] for row in read_yaml(data / "samples" / "samples.yaml")}
    examples = load_card("timed_samples").read(data, "test")
    clips: dict[str, list[tuple[float, float]]] = {}
    for example in examples:
        assert example.question in captions
        clips.setdefault(example.video or "", []).append(tuple(example.meta["windows"][0]))
    assert len(clips) == 6
    for path, windows in clips.items():
        with open_video(path) as reader:
            assert windows[-1][1] == pytest.approx(reader.duration)
        assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]
        assert windows[0][0] == 0
        assert all(temporal_iou(window, window) == pytest.approx(1) for window in windows)

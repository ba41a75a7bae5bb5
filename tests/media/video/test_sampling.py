"""Which frames are picked; that they are then the right ones is in `test_frame_accuracy.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import number_seen, write_video

from vlm.errors import BadInput
from vlm.media.video.reader import open_video
from vlm.media.video.sampling import (
    SAMPLERS,
    Adaptive,
    Clip,
    Keyframes,
    Rate,
    Scenes,
    Segments,
    Uniform,
    load_clip,
    parse_sampling,
    sample,
)
from vlm.media.video.sampling.base import Sampler, nearest


class Made:
    """A clip that exists only as small pictures: `grays` of each frame, `rate` frames a second."""

    def __init__(self, grays: list[float], rate: float = 10.0, start: float = 0.0, keyframes: tuple[int, ...] = (0,)):
        self.grays, self.keyframes = np.asarray(grays), list(keyframes)
        self.times_N = start + np.arange(len(grays)) / rate
        self.duration = len(grays) / rate
        self.looked_at = 0

    def thumbnails(self, indices: list[int]) -> np.ndarray:
        self.looked_at += len(indices)
        return np.broadcast_to(self.grays[indices, None, None, None], (len(indices), 32, 32, 3)).astype(np.uint8)


def test_centres_of_equal_segments(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", range(20))  # 2.0 s: centres at 0.25, 0.75, 1.25, 1.75; ties go to the earlier
    clip = load_clip(tmp_path / "a.mp4", n=4)
    assert len(clip.frames) == len(clip.times) == 4
    np.testing.assert_allclose(clip.times, [0.2, 0.7, 1.2, 1.7], atol=1e-6)
    assert [number_seen(frame) for frame in clip.frames] == [round(time * 10) for time in clip.times]
    assert clip.source == str(tmp_path / "a.mp4")
    assert clip.duration == pytest.approx(2.0)


def test_variable_rate_goes_by_time_not_by_count(tmp_path: Path) -> None:
    pts = [0, 1, 2, 3, 4, 5, 6, 7, 40, 79]  # eight frames in the first second, two in the seven after it
    reader = open_video(write_video(tmp_path / "a.mp4", pts))
    clip = sample(reader, Uniform(frames=4))
    centres = (np.arange(4) + 0.5) * reader.duration / 4
    for time, centre, frame in zip(clip.times, centres, clip.frames, strict=True):
        index = int(np.argmin(np.abs(np.array(pts) / 10 - centre)))
        assert time == pytest.approx(pts[index] / 10)
        assert number_seen(frame) == index


def test_one_frame_answers_for_every_segment(tmp_path: Path) -> None:
    clip = load_clip(write_video(tmp_path / "a.mp4", [0]), n=3)
    assert clip.times == [0.0, 0.0, 0.0]
    assert len(clip.frames) == 3


def test_a_late_start_counts_from_the_first_frame() -> None:
    assert Uniform(frames=2).pick(Made([0] * 10, start=10.0)) == [2, 7]


@pytest.mark.parametrize("n", [0, -1])
def test_no_frames_asked(tmp_path: Path, n: int) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        load_clip(tmp_path / "a.mp4", n=n)


def test_nearest() -> None:
    times = np.array([0.0, 1.0, 4.0])
    wanted = np.array([-5.0, 0.4, 0.5, 0.6, 2.4, 2.6, 9.0])
    assert nearest(times, wanted) == [0, 0, 0, 1, 1, 2, 2]
    assert nearest(np.array([3.0]), wanted) == [0] * 7


@pytest.mark.parametrize(("seconds", "count"), [(10, 5), (0.1, 1), (100, 20)])
def test_a_rate_has_a_cap(seconds: float, count: int) -> None:
    picked = Rate(fps=0.5, frames=20).pick(Made([0] * round(seconds * 10)))
    assert len(picked) == count
    assert np.ptp(np.diff([*picked])) <= 1 if count > 1 else True


def test_segments_vary_in_training_as_the_generator_says() -> None:
    clip, sampling = Made([0] * 800), Segments(frames=8)
    assert sampling.pick(clip) == Uniform(frames=8).pick(clip)
    first, again, other = (sampling.pick(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other
    many = np.array([sampling.pick(clip, np.random.default_rng(seed)) for seed in range(200)])
    low, high = np.arange(8) * 100, np.arange(1, 9) * 100
    assert (many >= low).all()
    assert (many <= high).all()
    assert (many.max(0) - many.min(0) > 80).all()


def test_keyframes_of_a_file(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "a.mp4", range(40), gop=8)) as reader:
        assert Keyframes(frames=9).pick(reader) == [0, 8, 16, 24, 32]
        assert Keyframes(frames=2).pick(reader) == [8, 24]
    assert Keyframes().pick(Made([0] * 9, keyframes=())) == [0]  # an edit list may have cut the only one


def test_a_frame_of_each_scene() -> None:
    clip = Made([10] * 30 + [90] * 10 + [200] * 60)
    assert Scenes().pick(clip) == [14, 34, 69]
    assert Scenes(frames=2).pick(clip) == [14, 69]
    assert Scenes(threshold=90).pick(clip) == [19, 69]
    assert Scenes().pick(Made([10 + i for i in range(100)])) == [49]  # a slow change is no cut


def test_scenes_of_a_file(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "a.mp4", range(4))) as reader:
        assert Scenes(threshold=10).pick(reader) == [0, 1, 2, 3]  # a block or two of twelve


def test_a_long_clip_is_looked_at_in_few_places() -> None:
    clip = Made([0] * 50_000 + [200] * 50_000)
    first, second = Scenes().pick(clip)
    assert first == pytest.approx(25_000, rel=0.02)
    assert second == pytest.approx(75_000, rel=0.02)
    assert clip.looked_at == 256


def test_more_frames_where_the_picture_changes() -> None:
    still, moving = [50] * 100, [50 + (i * 7) % 100 for i in range(100)]
    picked = np.array(Adaptive(tokens=160, tokens_per_frame=10).pick(Made(still + moving)))
    assert len(picked) == 16
    assert 2 <= (picked < 100).sum() <= 5
    assert Adaptive(tokens=160, tokens_per_frame=10).pick(Made([50] * 160)) == [*range(4, 160, 10)]


@pytest.mark.parametrize("grays", [[0] * 90, [*range(90)], [0] * 45 + [255] * 45, [0, 255] * 45, [7]])
@pytest.mark.parametrize("tokens", [16, 100, 256, 10_000])
def test_the_budget_holds_and_is_used(grays: list[float], tokens: int) -> None:
    picked = Adaptive(tokens=tokens, tokens_per_frame=16).pick(Made(grays))
    assert len(set(picked)) == len(picked) == min(tokens // 16, len(grays))
    assert picked == sorted(picked)


def test_a_cut_alone_takes_one_frame_not_all() -> None:
    picked = np.array(Adaptive(tokens=8, tokens_per_frame=1).pick(Made([0] * 50 + [255] * 50)))
    assert 50 in picked
    assert 3 <= (picked < 50).sum() <= 4


def test_adaptive_takes_a_frame_s_tokens_from_the_model() -> None:
    with pytest.raises(BadInput, match="tokens_per_frame"):
        Adaptive(tokens=64).pick(Made([0] * 90))
    assert len(Adaptive(tokens=64).fitted(16).pick(Made([0] * 90))) == 4
    assert len(Adaptive(tokens=64, tokens_per_frame=8).fitted(16).pick(Made([0] * 90))) == 8
    with pytest.raises(BadInput, match="do not pay for one frame of 100"):
        Adaptive(tokens=64).fitted(100)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_each_way_gives_ascending_frames_of_the_clip_and_at_most_as_many_as_asked(kind: str, count: int) -> None:
    sampling = parse_sampling(kind, frames=5).fitted(16)
    clip = Made([(i * 37) % 251 for i in range(count)], keyframes=(0, count - 1))
    picked = sampling.pick(clip)
    assert 1 <= len(picked) <= 5
    assert picked == sorted(picked)
    assert set(picked) <= set(range(count))


def test_each_frame_of_a_sampled_file_has_its_own_time(tmp_path: Path) -> None:
    pts = [0, 3, 4, 10, 11, 12, 30, 31, 32, 40, 41, 60]
    path = write_video(tmp_path / "a.mp4", pts, b_frames=2)
    for kind in SAMPLERS:
        clip = load_clip(path, sampling=parse_sampling(kind, frames=6).fitted(16))
        assert isinstance(clip, Clip)
        assert [pts[number_seen(frame)] / 10 for frame in clip.frames] == pytest.approx(clip.times), kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uniform", Uniform()),
        ("rate:fps=2", Rate(fps=2.0)),
        ("rate:fps=0.5, frames=9", Rate(fps=0.5, frames=9)),
        ("adaptive:tokens=512,floor=1", Adaptive(tokens=512, floor=1.0)),
    ],
)
def test_a_way_in_words(text: str, expected: Sampler) -> None:
    assert parse_sampling(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unform", "unknown sampling 'unform'; did you mean 'uniform'"),
        ("rate:fps", "expected KIND:key=value"),
        ("rate:fps=fast", "got 'fast'"),
        ("rate:fps=-1", "greater than 0, got '-1'"),
        ("rate:fps={", "got '{'"),
        ("scenes:fps=1", "Extra inputs are not permitted"),
        ("adaptive:tokens=10,tokens_per_frame=16", "do not pay"),
    ],
)
def test_a_way_that_is_none_is_one_line(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_sampling(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

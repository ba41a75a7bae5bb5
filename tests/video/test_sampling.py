from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import index_seen, write_video

from vlm.errors import BadInput
from vlm.video.reader import open_video
from vlm.video.sampling import load_clip, nearest, uniform


def test_centres_of_equal_segments(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(20)))  # 2.0 s: centres at 0.25, 0.75, 1.25, 1.75; ties go to the earlier
    clip = load_clip(tmp_path / "a.mp4", n=4)
    assert len(clip.frames) == len(clip.times) == 4
    np.testing.assert_allclose(clip.times, [0.2, 0.7, 1.2, 1.7], atol=0.11)
    assert [index_seen(frame) for frame in clip.frames] == [round(time * 10) for time in clip.times]
    assert clip.source == str(tmp_path / "a.mp4")


def test_variable_rate_goes_by_time_not_by_count(tmp_path: Path) -> None:
    pts = [0, 1, 2, 3, 4, 5, 6, 7, 40, 79]  # eight frames in the first second, two in the seven after it
    write_video(tmp_path / "a.mp4", pts)
    reader = open_video(tmp_path / "a.mp4")
    clip = uniform(reader, 4)
    centres = (np.arange(4) + 0.5) * reader.duration / 4
    for time, centre, frame in zip(clip.times, centres, clip.frames, strict=True):
        index = int(np.argmin(np.abs(np.array(pts) / 10 - centre)))
        assert time == pytest.approx(pts[index] / 10)
        assert index_seen(frame) == index


def test_one_frame_answers_for_every_segment(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [0])
    clip = load_clip(tmp_path / "a.mp4", n=3)
    assert clip.times == [0.0, 0.0, 0.0]
    assert len(clip.frames) == 3


def test_a_late_start_counts_from_the_first_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", list(range(100, 110)))
    clip = load_clip(tmp_path / "a.mkv", n=2)
    np.testing.assert_allclose(clip.times, [10.2, 10.7], atol=0.11)


@pytest.mark.parametrize("n", [0, -1])
def test_no_frames_asked(tmp_path: Path, n: int) -> None:
    write_video(tmp_path / "a.mp4", [0, 1])
    with pytest.raises(BadInput, match="at least 1"):
        load_clip(tmp_path / "a.mp4", n=n)


def test_nearest() -> None:
    times = np.array([0.0, 1.0, 4.0])
    wanted = np.array([-5.0, 0.4, 0.5, 0.6, 2.4, 2.6, 9.0])
    assert nearest(times, wanted).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert nearest(np.array([3.0]), wanted).tolist() == [0] * 7

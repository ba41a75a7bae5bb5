"""What a reader says of a file, and what it refuses. That its frames are right is in `test_frame_accuracy.py`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import number_seen, write_audio, write_video

from vlm.errors import BadInput
from vlm.media.video.conversion import MAX_SIDE
from vlm.media.video.reader import open_video


def refusal(path: Path | str, **options: object) -> str:
    with pytest.raises(BadInput) as caught:
        open_video(path, **options).frames([0])  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert Path(str(path)).name in message
    return message


def test_constant_rate_times_size_and_duration(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "a.mp4", range(12))) as reader:
        assert reader.times_N.dtype == np.float64
        np.testing.assert_allclose(reader.times_N, np.arange(12) / 10, atol=1e-9)
        assert reader.duration == pytest.approx(1.2)
        assert reader.size == (64, 48)
        assert reader.keyframes == [0, 5, 10]


def test_frames_come_in_the_order_asked(tmp_path: Path) -> None:
    frames = open_video(write_video(tmp_path / "a.mp4", range(12))).frames([7, 0, 11, 7])
    assert [number_seen(frame) for frame in frames] == [7, 0, 11, 7]
    assert {frame.mode for frame in frames} == {"RGB"}


def test_thumbnails_are_small_and_in_the_order_asked(tmp_path: Path) -> None:
    small = open_video(write_video(tmp_path / "a.mp4", range(12))).thumbnails([9, 3, 9])
    assert small.shape == (3, 32, 32, 3)
    assert [number_seen(pixels) for pixels in small] == [9, 3, 9]
    assert open_video(tmp_path / "a.mp4").thumbnails([]).shape == (0, 32, 32, 3)


def test_a_reader_goes_on_after_another_was_used(tmp_path: Path) -> None:
    one, other = (open_video(write_video(tmp_path / name, range(8))) for name in ("a.mp4", "b.mkv"))
    assert [number_seen(reader.frames([4])[0]) for reader in (one, other, one)] == [4, 4, 4]


def test_a_relative_path_is_the_asking_process_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "a.mp4", range(3 if name == "one" else 5))
        monkeypatch.chdir(tmp_path / name)
        assert len(open_video("a.mp4").times_N) == (3 if name == "one" else 5)


def test_one_frame(tmp_path: Path) -> None:
    reader = open_video(write_video(tmp_path / "a.mp4", [0]))
    assert reader.times_N.tolist() == [0.0]
    assert reader.duration > 0
    assert len(reader.frames([0, 0])) == 2


@pytest.mark.parametrize("isolated", [True, False])
def test_huge_frames_are_scaled_down(tmp_path: Path, isolated: bool) -> None:
    write_video(tmp_path / "a.mp4", [0, 1], size=(2560, 128), codec="mpeg4")
    reader = open_video(tmp_path / "a.mp4", isolated=isolated)
    assert reader.size == (MAX_SIDE, 64)
    assert reader.frames([1])[0].size == reader.size


def test_an_index_outside_the_file(tmp_path: Path) -> None:
    reader = open_video(write_video(tmp_path / "a.mp4", [0, 1]))
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"frame {index} of 2"):
            reader.frames([index])
    assert reader.frames([]) == []


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "no such file" in refusal(tmp_path / "none.mp4")
    assert "folder" in refusal(tmp_path)
    assert "empty" in refusal(tmp_path / "empty.mp4")


def test_text_named_mp4(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("this is not a video\n" * 50)
    assert "expected a video" in refusal(tmp_path / "a.mp4")


def test_a_playlist_is_not_opened(tmp_path: Path) -> None:
    write_video(tmp_path / "real.ts", [0, 1, 2])
    (tmp_path / "a.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'real.ts'}\n")
    refusal(tmp_path / "a.mp4")
    refusal(tmp_path / "b.mp4")


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.media.video.streams.MAX_PIXELS", 64 * 48 - 1)
    write_video(tmp_path / "a.mp4", range(3))
    assert "at most 3071 pixels a frame, got 64x48" in refusal(tmp_path / "a.mp4", isolated=False)


def test_audio_only(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.mp4")
    assert "expected a video stream, got streams of type: audio" in refusal(tmp_path / "a.mp4")


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", range(3))
    path.write_bytes(path.read_bytes().replace(b"avc1\0", b"zzz1\0"))
    assert "got streams of type: video (of a codec that is not known)" in refusal(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_no_frames(tmp_path: Path, suffix: str) -> None:
    assert "expected a video" in refusal(write_video(tmp_path / f"a.{suffix}", []))


@pytest.mark.parametrize("faststart", [True, False])
def test_truncated(tmp_path: Path, faststart: bool) -> None:
    path = write_video(tmp_path / "a.mp4", range(40), faststart=faststart)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    refusal(path)


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_truncated_without_an_index(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", range(40), codec="mpeg4")
    assert len(open_video(path).times_N) == 40
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    refusal(path)


def test_truncated_between_the_parts_of_a_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.gif", range(20), codec="gif", pixels="rgb8")
    content = path.read_bytes()
    path.write_bytes(content + bytes(9))
    assert len(open_video(path).times_N) == 20
    path.write_bytes(content[: int(len(content) * 0.6)])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_stream_that_ends_early_has_the_frames_that_are_there(tmp_path: Path, share: float) -> None:
    """A transport stream promises no end."""
    path = write_video(tmp_path / "a.ts", range(40), b_frames=2, gop=12)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    reader = open_video(path)
    times_N = reader.times_N - reader.times_N[0]
    assert len(times_N) < 40
    seen = [number_seen(frame) for frame in reader.frames(range(len(times_N)))]
    assert seen == (times_N * 10).round().astype(int).tolist()


@pytest.mark.parametrize("backend", ["pyav", "sequential"])
def test_damaged_inside(tmp_path: Path, backend: str) -> None:
    path = write_video(tmp_path / "a.mp4", range(40))
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    assert "damaged" in refusal(path, backend=backend)


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for count in (5, 9):
        assert len(open_video(write_video(path, range(count))).times_N) == count


def test_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown video backend 'pyva'; did you mean 'pyav'"):
        open_video(tmp_path / "a.mp4", backend="pyva")


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_a_backend_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr("vlm.media.video.backends.find_spec", lambda name: None)
    write_video(tmp_path / "a.mp4", range(3))
    assert len(open_video(tmp_path / "a.mp4").frames([2])) == 1
    with pytest.raises(BadInput, match=f"expected the {backend} package"):
        open_video(tmp_path / "a.mp4", backend=backend)


def test_raw_time_base_is_kept(tmp_path: Path) -> None:
    """29.97 frames a second do not land on round numbers."""
    path = write_video(tmp_path / "a.mp4", range(10), time_base=Fraction(1001, 30000))
    np.testing.assert_allclose(open_video(path).times_N, np.arange(10) * 1001 / 30000, atol=1e-6)

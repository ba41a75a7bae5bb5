from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import index_seen, write_audio, write_video

from vlm.errors import BadInput
from vlm.video.reader import MAX_SIDE, DecordReader, VideoReader, open_video

VARIABLE = [0, 3, 4, 10, 11, 12, 30, 31]


def refusal(path: Path | str) -> str:
    with pytest.raises(BadInput) as caught:
        open_video(path)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(str(path)).name in message
    return message


def test_constant_rate_times_size_and_duration(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", list(range(12)))
    with open_video(tmp_path / "a.mp4") as reader:
        assert reader.times_N.dtype == np.float64
        np.testing.assert_allclose(reader.times_N, np.arange(12) / 10, atol=1e-9)
        assert reader.duration == pytest.approx(1.2)
        assert reader.size == (64, 48)


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_frames_come_in_the_order_asked(tmp_path: Path, backend: str) -> None:
    if backend == "decord":
        pytest.importorskip("decord")
    write_video(tmp_path / "a.mp4", list(range(12)))
    frames = open_video(tmp_path / "a.mp4", backend=backend).frames([7, 0, 11, 7])  # type: ignore[arg-type]
    assert [index_seen(frame) for frame in frames] == [7, 0, 11, 7]
    assert {frame.mode for frame in frames} == {"RGB"}


def test_decord_gives_the_frames_pyav_gives(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    write_video(tmp_path / "a.mp4", list(range(20)))
    exact, fast = (open_video(tmp_path / "a.mp4", backend=name) for name in ("pyav", "decord"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(exact.times_N, fast.times_N)
    for one, other in zip(exact.frames(range(20)), fast.frames(range(20)), strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).mean() < 2


def test_auto_takes_decord_only_for_a_plain_file(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    write_video(tmp_path / "plain.mp4", list(range(12)))
    write_video(tmp_path / "variable.mp4", VARIABLE)
    write_video(tmp_path / "turned.mp4", list(range(12)), rotation=90)
    write_video(tmp_path / "cut.mp4", list(range(-3, 12)))
    assert isinstance(open_video(tmp_path / "plain.mp4"), DecordReader)
    for name in ("variable.mp4", "turned.mp4", "cut.mp4"):
        assert type(open_video(tmp_path / name)) is VideoReader


def test_without_decord_auto_takes_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    write_video(tmp_path / "a.mp4", list(range(6)))
    assert type(open_video(tmp_path / "a.mp4")) is VideoReader
    with pytest.raises(BadInput, match="decord"):
        open_video(tmp_path / "a.mp4", backend="decord")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_times_are_the_containers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_video(path, VARIABLE)
    reader = open_video(path)
    np.testing.assert_allclose(reader.times_N, np.array(VARIABLE) / 10, atol=1e-3)
    assert [index_seen(frame) for frame in reader.frames(range(len(VARIABLE)))] == list(range(len(VARIABLE)))


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts", "mov"])
def test_other_containers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_video(path, list(range(10)), codec="mpeg4" if suffix == "avi" else "libx264")
    reader = open_video(path)
    np.testing.assert_allclose(np.diff(reader.times_N), 0.1, atol=2e-3)
    assert len(reader.times_N) == 10
    assert [index_seen(frame) for frame in reader.frames([9, 4])] == [9, 4]


def test_an_edit_list_hides_what_it_cuts(tmp_path: Path) -> None:
    """The first three frames are in the file, and its edit list begins after them."""
    write_video(tmp_path / "a.mp4", list(range(-3, 12)))
    reader = open_video(tmp_path / "a.mp4")
    np.testing.assert_allclose(reader.times_N, np.arange(12) / 10, atol=1e-9)
    assert reader.duration == pytest.approx(1.2)
    assert [index_seen(frame) for frame in reader.frames([0, 11])] == [3, 14]


def test_a_late_first_frame_keeps_its_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", [5, 6, 7, 8])
    reader = open_video(tmp_path / "a.mkv")
    np.testing.assert_allclose(reader.times_N, [0.5, 0.6, 0.7, 0.8], atol=2e-3)
    assert reader.duration == pytest.approx(0.4, abs=2e-3)


def test_one_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [0])
    reader = open_video(tmp_path / "a.mp4")
    assert reader.times_N.tolist() == [0.0]
    assert reader.duration > 0
    assert len(reader.frames([0, 0])) == 2


@pytest.mark.parametrize(("rotation", "white"), [(90, "bottom left"), (180, "bottom right"), (270, "top right")])
def test_a_turned_phone_gives_upright_frames(tmp_path: Path, rotation: int, white: str) -> None:
    write_video(tmp_path / "a.mp4", [0, 1, 2], rotation=rotation)
    reader = open_video(tmp_path / "a.mp4")
    assert reader.size == ((64, 48) if rotation == 180 else (48, 64))
    frame = np.asarray(reader.frames([0])[0])
    assert frame.shape[:2] == (reader.size[1], reader.size[0])
    rows = slice(2, 10) if "top" in white else slice(-10, -2)
    columns = slice(2, 10) if "left" in white else slice(-10, -2)
    assert frame[rows, columns].mean() > 200


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_huge_frames_are_scaled_down(tmp_path: Path, backend: str) -> None:
    if backend == "decord":
        pytest.importorskip("decord")
    write_video(tmp_path / "a.mp4", [0, 1], size=(2560, 128), codec="mpeg4")
    reader = open_video(tmp_path / "a.mp4", backend=backend)  # type: ignore[arg-type]
    assert reader.size == (MAX_SIDE, 64)
    assert reader.frames([1])[0].size == reader.size


def test_an_index_outside_the_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [0, 1])
    with pytest.raises(IndexError, match="frame 2 of 2"):
        open_video(tmp_path / "a.mp4").frames([2])
    assert open_video(tmp_path / "a.mp4").frames([]) == []


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


def test_audio_only(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.mp4")
    assert "expected a video stream, got streams of type: audio" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("faststart", [True, False])
def test_truncated(tmp_path: Path, faststart: bool) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, list(range(40)), faststart=faststart)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    refusal(path)


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_truncated_without_an_index(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_video(path, list(range(40)), codec="mpeg4")
    assert len(open_video(path).times_N) == 40
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    refusal(path)


def test_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, list(range(40)), codec="libx264")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    refusal(path)


def test_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="auto, pyav or decord"):
        open_video(tmp_path / "a.mp4", backend="vlc")  # type: ignore[arg-type]


def test_raw_time_base_is_kept(tmp_path: Path) -> None:
    """29.97 frames a second do not land on round numbers."""
    write_video(tmp_path / "a.mp4", list(range(10)), time_base=Fraction(1001, 30000))
    np.testing.assert_allclose(open_video(tmp_path / "a.mp4").times_N, np.arange(10) * 1001 / 30000, atol=1e-6)

"""Every frame that is handed out is the one asked for, at its own time - or an error says why it cannot be.

Each clip has its frames' numbers drawn into them. The plain way (decoding in order) must give the same pixels.
"""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import cut_by_edit_list, number_seen, write_video

from vlm.errors import BadInput
from vlm.media.video.backends import decoder_class
from vlm.media.video.backends.pyav import PyavDecoder, SequentialDecoder, runs
from vlm.media.video.reader import open_video
from vlm.media.video.timeline import Packets

COUNT = 40
UNEVEN = [0, 3, 4, 10, 11, 12, 30, 31, 32, 40, 41, 60, 61, 62, 90]
QUARTER = Fraction(1, 25)
X265 = {"x265-params": "log-level=none"}
CLIPS: dict[str, dict[str, Any]] = {
    "constant.mp4": {},
    "variable.mp4": {"pts": UNEVEN, "b_frames": 2},
    "variable.mkv": {"pts": UNEVEN},
    "b_frames.mp4": {"b_frames": 3, "gop": 12},
    "b_frames.mkv": {"b_frames": 3, "gop": 12},
    "b_frames.ts": {"b_frames": 3, "gop": 12},
    "pyramid.mp4": {"gop": 30, "options": {"x264-params": "b-pyramid=normal:b-adapt=0:bframes=8"}},
    "one_long_group.mp4": {"gop": 250, "b_frames": 3},
    "open_groups.mp4": {"gop": 12, "b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "open_groups.ts": {"gop": 12, "b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "no_keyframes_but_the_first.ts": {"gop": 12, "options": {"x264-params": "intra-refresh=1"}},
    "only_keyframes.mp4": {"gop": 1},
    "starts_before_zero.mp4": {"pts": range(-3, COUNT - 3), "b_frames": 2},
    "starts_late.mkv": {"pts": range(50, 50 + COUNT)},
    "cut.mp4": {"b_frames": 3, "gop": 12, "cut": (1.3, 1.5)},
    "cut_inside_one_group.mp4": {"b_frames": 0, "gop": 60, "cut": (1.3, 1.5)},
    "odd_size.webm": {"codec": "libvpx-vp9", "size": (63, 47), "gop": 12},
    "odd_size.mkv": {"codec": "ffv1", "size": (63, 47), "pixels": "yuv444p"},
    "turned.mp4": {"rotation": 90, "b_frames": 2},
    "upside_down.mp4": {"rotation": 180},
    "ten_bit.mp4": {"pixels": "yuv420p10le", "b_frames": 2, "gop": 12},
    "interlaced.ts": {"options": {"x264-params": "interlaced=1"}, "b_frames": 2, "gop": 12, "time_base": QUARTER},
    "hevc_ten_bit.mp4": {"codec": "libx265", "pixels": "yuv420p10le", "gop": 12, "size": (128, 96), "options": X265},
    "hevc_layers.mp4": {
        "codec": "libx265",
        "gop": 24,
        "size": (128, 96),
        "options": {"x265-params": "temporal-layers=3:b-adapt=0:bframes=3:log-level=none"},
    },
    "mpeg2.ts": {"codec": "mpeg2video", "b_frames": 2, "gop": 12, "time_base": QUARTER},
    "program.mpg": {"codec": "mpeg2video", "b_frames": 2, "gop": 12, "time_base": QUARTER},
    "disc.vob": {"codec": "mpeg2video", "b_frames": 2, "gop": 5, "time_base": QUARTER},
    "h264_in_a_program.mpg": {"b_frames": 3, "gop": 12, "time_base": QUARTER},
    "hidden_frames.webm": {
        "codec": "libvpx",
        "gop": 30,
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"},
    },
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "moving.gif": {"codec": "gif", "pixels": "rgb8"},
    "no_container.h264": {"b_frames": 2, "gop": 12, "time_base": QUARTER},
}
BACKENDS = ["auto", "pyav", "decord", "torchcodec"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, made = tmp_path_factory.mktemp("clips"), dict[str, tuple[Path, list[float], int, int]]()

    def make(name: str) -> tuple[Path, list[float], int, int]:
        """The file, the time of each frame, the number of the first and quarter turns."""
        if name not in made:
            about = dict(CLIPS[name])
            pts, cut = list(about.pop("pts", range(COUNT))), about.pop("cut", None)
            if about.get("codec", "libx264") not in av.codecs_available:
                pytest.skip(f"this PyAV has no {about['codec']}")
            path = write_video(folder / name, pts, **about)
            first, count = sum(time < 0 for time in pts), len(pts)
            if cut is not None:
                cut_by_edit_list(path, *cut)
                first, count = round(cut[0] * 10), round(sum(cut) * 10)
            tick = float(about.get("time_base", Fraction(1, 10)))
            times = [(time - pts[first]) * tick for time in pts[first:count]]
            made[name] = path, times, first, about.get("rotation", 0) // 90
        return made[name]

    return make


@pytest.mark.parametrize("name", CLIPS)
def test_each_frame_and_its_time_are_right(clips: Any, name: str) -> None:
    path, times, first, turns = clips(name)
    decoder, plain = PyavDecoder(path), SequentialDecoder(path)
    count = len(times)
    np.testing.assert_allclose(decoder.timeline.times_N - decoder.timeline.times_N[0], times, atol=2e-3)
    assert decoder.timeline.duration == pytest.approx(times[-1] + np.median(np.diff(times)), rel=0.4)
    expected = dict(plain.frames(range(count)))
    assert [number_seen(expected[i], turns) for i in range(count)] == list(range(first, first + count))
    sparse = [0, count // 5, count // 2, count // 2 + 1, count - 1]
    found = dict(decoder.frames(sparse))
    for index in sparse:
        np.testing.assert_array_equal(found[index], expected[index])
    for index in range(count - 1, 0, -3):  # one alone, backwards
        np.testing.assert_array_equal(dict(decoder.frames([index]))[index], expected[index])


@pytest.mark.parametrize(("codec", "size"), [("libx264", (64, 48)), ("mpeg4", (64, 48)), ("libx265", (128, 96))])
def test_a_file_that_calls_every_frame_a_keyframe(tmp_path: Path, codec: str, size: tuple[int, int]) -> None:
    """Without its table of sync samples (ISO 14496-12, 8.6.2) every frame of an MP4 file is said to be one."""
    path = write_video(
        tmp_path / "a.mp4", range(30), codec=codec, gop=12, size=size, options=X265 if codec == "libx265" else None
    )
    content = path.read_bytes()
    assert content.count(b"stss") == 1
    path.write_bytes(content.replace(b"stss", b"free"))
    for index in (7, 13, 29):
        assert [number_seen(pixels) for _, pixels in PyavDecoder(path).frames([index])] == [index]
        np.testing.assert_array_equal(
            dict(PyavDecoder(path).frames([index]))[index], dict(SequentialDecoder(path).frames([index]))[index]
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CLIPS)
def test_each_backend_is_right_or_says_why_not(clips: Any, name: str, backend: Any) -> None:
    path, times, first, turns = clips(name)
    if backend == "decord":
        pytest.importorskip("decord")
    if backend == "torchcodec":
        _skip_without_torchcodec()
    wanted = [len(times) // 3, 0, len(times) - 1, len(times) // 2]
    may_refuse = BadInput if backend in ("decord", "torchcodec") else ()
    try:
        reader = open_video(path, backend, isolated=backend == "auto")
        frames = reader.frames(wanted)
    except may_refuse:
        return
    assert [number_seen(frame, turns) for frame in frames] == [first + index for index in wanted]
    np.testing.assert_allclose(reader.times_N[wanted] - reader.times_N[0], [times[i] for i in wanted], atol=2e-3)


def _skip_without_torchcodec() -> None:
    if importlib.util.find_spec("torchcodec") is None:
        pytest.skip("torchcodec is not installed")
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec does not load: {str(error).strip().splitlines()[0]}")


@pytest.mark.parametrize("name", ["variable.mp4", "cut.mp4", "turned.mp4", "open_groups.mp4", "hevc_ten_bit.mp4"])
def test_decord_is_refused_where_it_would_be_wrong(clips: Any, name: str) -> None:
    pytest.importorskip("decord")
    with pytest.raises(BadInput, match="decord"):
        open_video(clips(name)[0], "decord", isolated=False).frames([0])


def test_decord_reads_a_plain_file(clips: Any) -> None:
    pytest.importorskip("decord")
    frames = open_video(clips("b_frames.mp4")[0], "decord", isolated=False).frames([17, 3])
    assert [number_seen(frame) for frame in frames] == [17, 3]


def test_seeking_is_used_and_what_it_cannot_reach_is_decoded_in_order(
    clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    whole = PyavDecoder._open

    def counted(self: PyavDecoder) -> None:
        opened.append(self.path)
        whole(self)

    monkeypatch.setattr(PyavDecoder, "_open", counted)
    for name, times in (("b_frames.ts", 1), ("cut.mp4", 1), ("no_keyframes_but_the_first.ts", 2)):
        decoder = decoder_class("auto")(clips(name)[0])
        assert sorted(index for index, _ in decoder.frames([13, 14])) == [13, 14]
        assert opened.count(decoder.path) == times, name


def test_decoding_begins_at_the_keyframe_a_frame_depends_on() -> None:
    # I0 P3 B1 B2 | I6 B4 B5 P7: B4 and B5 are shown before the second keyframe and need the first.
    packets = Packets([0, 3, 1, 2, 6, 4, 5, 7], [None] * 8, [True, False, False, False, True, False, False, False])
    assert runs(packets, [7, 4, 2]) == [(0, [2]), (4, [4, 7])]
    assert runs(packets, [5, 4]) == [(0, [5]), (4, [4])]


def test_pixels_are_the_same_as_ffmpeg_s_own_conversion(clips: Any) -> None:
    path = clips("b_frames.mp4")[0]
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for index, pixels in PyavDecoder(path).frames(range(COUNT)):
        np.testing.assert_array_equal(pixels, expected[index])

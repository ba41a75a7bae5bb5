"""Times where a container tells them badly: AVI, which has none but an order, and recordings joined end to end."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import number_seen, write_video
from oracle import ffmpeg, frames_of, times_of

from vlm.errors import BadInput
from vlm.media.open import open_media
from vlm.media.video.reader import open_video

QUARTER = Fraction(1, 25)
PACKET = 188


def check(path: Path, numbers: list[int], step: float = 0.04) -> None:
    """Every frame, in order, at steps of the same length to the end; one alone is the same."""
    for backend in ("pyav", "sequential"):
        reader = open_video(path, backend)
        assert [number_seen(frame) for frame in reader.frames(range(len(reader.times_N)))] == numbers
        np.testing.assert_allclose(np.diff(reader.times_N), step, atol=2e-3)
        assert reader.duration == pytest.approx(step * len(numbers), abs=5e-3)
        for place in (len(numbers) - 1, len(numbers) // 2):
            assert number_seen(reader.frames([place])[0]) == numbers[place]


X264 = {"x264-params": "b-adapt=0:bframes=3:keyint=12"}


@pytest.mark.parametrize("time_base", [QUARTER, Fraction(1, 600)])
@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", X264), ("libx264", {"bf": "0"}), ("mpeg4", {"bf": "2"}), ("mpeg2video", {"bf": "2"}), ("mjpeg", {})],
)
def test_avi(tmp_path: Path, codec: str, options: dict[str, str], time_base: Fraction) -> None:
    """B-frames are shown in another order than they are decoded in; the last one's time is no guess."""
    if codec == "mpeg2video" and time_base != QUARTER:
        pytest.skip("MPEG-2 has no such rate")
    pixels, ticks = "yuvj420p" if codec == "mjpeg" else "yuv420p", int(QUARTER / time_base)
    pts = range(0, 50 * ticks, ticks)
    path = write_video(
        tmp_path / "a.avi", pts, codec=codec, options=options, gop=12, time_base=time_base, pixels=pixels
    )
    if codec == "libx264" and "bf" not in options:
        with av.open(str(path)) as container:
            assert av.video.frame.PictureType.B in {frame.pict_type for frame in container.decode(video=0)}
    check(path, list(range(50)))


@pytest.mark.parametrize(("codec", "options"), [("libx264", X264), ("mpeg4", {"bf": "2"}), ("ffv1", {})])
def test_pauses_in_avi(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    """A frame that stays for longer is followed by empty packets."""
    pts = [0, 1, 2, 6, 7, 8, 9, 10, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]
    path = write_video(tmp_path / "a.avi", pts, codec=codec, options=options, gop=12, time_base=QUARTER)
    reader = open_video(path)
    assert [number_seen(frame) for frame in reader.frames(range(len(pts)))] == list(range(len(pts)))
    np.testing.assert_allclose(reader.times_N - reader.times_N[0], np.array(pts) / 25, atol=2e-3)


@pytest.mark.parametrize(
    "encoder",
    ["libx264 -bf 3 -x264-params b-adapt=0", "libxvid -bf 2", "mpeg4 -bf 2 -vtag DIVX", "mpeg2video -bf 2", "ffv1"],
)
def test_avi_as_ffmpeg_shows_it(tmp_path: Path, encoder: str) -> None:
    path = tmp_path / "a.avi"
    source = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25", "-t", "1.6", "-pix_fmt", "yuv420p")
    ffmpeg(*source, "-c:v", *encoder.split(), path)
    reader = open_video(path)
    np.testing.assert_array_equal(np.stack(reader.frames(range(len(reader.times_N)))), frames_of(path, (96, 64)))
    expected = np.array(times_of(path))
    np.testing.assert_allclose(reader.times_N - reader.times_N[0], expected - expected[0], atol=2e-3)
    assert reader.duration == pytest.approx(len(expected) / 25, abs=5e-3)


@pytest.mark.parametrize(("codec", "options"), [("libx264", X264), ("mpeg4", {"bf": "2"})])
def test_a_file_that_lost_the_times_of_showing(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    """Without their table (ISO 14496-12, 8.6.1.3) the times of decoding stand for them."""
    path = write_video(tmp_path / "a.mp4", range(50), codec=codec, options=options, gop=12, time_base=QUARTER)
    content = path.read_bytes()
    assert content.count(b"ctts") == 1
    path.write_bytes(content.replace(b"ctts", b"free").replace(b"edts", b"free"))
    check(path, list(range(50)))


def test_a_file_whose_frames_are_shown_as_they_are_decoded(tmp_path: Path) -> None:
    """MPEG-2 seldom says that it has no B-frames, and then the times of decoding are those of showing."""
    pts = [0, 1, 2, 6, 7, 8, 20, 21, 22, 23, 40, 41]
    first = write_video(tmp_path / "a.mkv", pts, codec="mpeg2video", b_frames=0, gop=5, time_base=QUARTER)
    path = tmp_path / "a.mp4"
    with av.open(str(first)) as given, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.pts is not None:
                packet.dts, packet.stream = packet.pts, stream
                made.mux(packet)
    with av.open(str(path)) as container:
        assert all(packet.pts == packet.dts for packet in container.demux(video=0))
    reader = open_video(path)
    assert [number_seen(frame) for frame in reader.frames(range(len(pts)))] == list(range(len(pts)))
    np.testing.assert_allclose(reader.times_N - reader.times_N[0], np.array(pts) / 25, atol=2e-3)


def test_h264_in_asf(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.asf", range(50), options=X264, gop=12, time_base=QUARTER)
    check(path, list(range(50)))


def joined(folder: Path, *parts: Path) -> Path:
    (folder / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder / "joined.ts"


ENCODERS = [
    ("libx264", {"x264-params": "b-adapt=0:bframes=2"}),
    ("libx265", {"x265-params": "log-level=none:bframes=2:pools=none:frame-threads=1"}),
    ("mpeg2video", {"bf": "2"}),
]


def write_part(path: Path, count: int, start: int = 0, encoder: int = 0) -> Path:
    codec, options = ENCODERS[encoder]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    pts = range(start, start + count)
    return write_video(path, pts, codec=codec, options=options, gop=12, time_base=QUARTER, size=(128, 96))


@pytest.mark.parametrize("encoder", range(len(ENCODERS)))
@pytest.mark.parametrize(
    ("first", "second"),
    [((50, 0), (50, 0)), ((30, 100), (20, 0)), ((20, 0), (30, 18)), ((20, 0), (30, 25 * 60)), ((20, 0), (1, 0))],
    ids=["again", "before", "overlapping", "a minute later", "one frame"],
)
def test_joined_recordings(tmp_path: Path, encoder: int, first: tuple[int, int], second: tuple[int, int]) -> None:
    parts = [write_part(tmp_path / f"{i}.ts", *part, encoder=encoder) for i, part in enumerate((first, second))]
    path = joined(tmp_path, *parts)
    check(path, [*range(first[0]), *range(second[0])])
    (note,) = open_video(path).notes
    assert note == f"{path}: 2 recordings joined, each with a clock of its own: their times go on one after another"
    assert open_media(path).notes == (note,)


def test_joined_as_ffmpeg_shows_it(tmp_path: Path) -> None:
    path = joined(tmp_path, write_part(tmp_path / "a.ts", 30), write_part(tmp_path / "b.ts", 40))
    reader = open_video(path)
    frames = np.stack(reader.frames(range(70)))
    np.testing.assert_array_equal(frames, frames_of(path, reader.size))
    expected = np.array(times_of(path))
    np.testing.assert_allclose(reader.times_N - reader.times_N[0], expected - expected[0], atol=0.05)


def test_three_joined_with_another_in_the_middle(tmp_path: Path) -> None:
    parts = [
        write_part(tmp_path / f"{i}.ts", count, start)
        for i, (count, start) in enumerate([(9, 0), (5, 25 * 60), (7, 0)])
    ]
    path = joined(tmp_path, *parts)
    check(path, [*range(9), *range(5), *range(7)])
    assert "3 recordings" in open_video(path).notes[0]


def test_joined_while_the_clock_goes_on(tmp_path: Path) -> None:
    """As segments of a broadcast are: only the counters start again."""
    path = joined(tmp_path, write_part(tmp_path / "a.ts", 20), write_part(tmp_path / "b.ts", 30, 20))
    check(path, [*range(20), *range(30)])


def test_joined_packets_of_192_bytes(tmp_path: Path) -> None:
    path = joined(tmp_path, write_part(tmp_path / "a.ts", 20), write_part(tmp_path / "b.ts", 30))
    content = path.read_bytes()
    stamped = (bytes(4) + content[at : at + PACKET] for at in range(0, len(content), PACKET))
    (tmp_path / "joined.m2ts").write_bytes(b"".join(stamped))
    check(tmp_path / "joined.m2ts", [*range(20), *range(30)])


def write_noise(path: Path, count: int, encoder: int) -> Path:
    """Frames of many packets each."""
    codec, options = ENCODERS[encoder]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = 128, 96, "yuv420p", 12
        for _ in range(count):
            picture = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def packets_of(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return [content[at : at + PACKET] for at in range(0, len(content), PACKET)]


def of_the_film(packet: bytes) -> bool:
    return (packet[1] & 0x1F) << 8 | packet[2] == 0x100 and not packet[1] & 0x40


LOSSES: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "one packet": lambda packets, at: packets[:at] + packets[at + 1 :],
    "many packets": lambda packets, at: packets[:at] + packets[at + 40 :],
    "zeros": lambda packets, at: [*packets[:at], *[bytes(PACKET)] * 9, *packets[at + 9 :]],
}


@pytest.mark.parametrize("encoder", range(len(ENCODERS)))
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("twice", [False, True])
def test_a_damaged_recording_is_refused(tmp_path: Path, encoder: int, loss: str, twice: bool) -> None:
    """Joined or not; lost in the middle of a frame."""
    path = joined(tmp_path, *[write_noise(tmp_path / "a.ts", 30, encoder)] * (1 + twice))
    packets = packets_of(path)
    places = [at for at in range(len(packets) - 1) if of_the_film(packets[at]) and of_the_film(packets[at + 1])]
    for at in places[len(places) // 7 :: len(places) // 3]:
        path.write_bytes(b"".join(LOSSES[loss](packets, at)))
        with pytest.raises(BadInput, match=r"joined\.ts: expected .*damaged"):
            open_video(path)


@pytest.mark.parametrize("suffix", ["mpg", "vob"])
@pytest.mark.parametrize("parts", [1, 2])
def test_program_streams_as_ffmpeg_shows_them(tmp_path: Path, suffix: str, parts: int) -> None:
    """They say the time of some frames alone, and are joined too."""
    part, path = tmp_path / f"part.{suffix}", tmp_path / f"a.{suffix}"
    source = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25", "-t", "3")
    ffmpeg(*source, "-c:v", "mpeg2video", "-bf", "2", "-g", "12", part)
    path.write_bytes(part.read_bytes() * parts)
    reader = open_video(path)
    frames = np.stack(reader.frames(range(len(reader.times_N))))
    np.testing.assert_array_equal(frames, frames_of(path, (96, 64)))
    np.testing.assert_allclose(np.diff(reader.times_N), 0.04, atol=2e-3)

"""A frame is the picture people see: the right stream, upright or mirrored as the file says, in its colours."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from clips import number_seen, picture_of, write_video
from oracle import ffmpeg, frames_of

from vlm.errors import BadInput
from vlm.media.open import open_media
from vlm.media.video.backends.pyav import PyavDecoder, SequentialDecoder
from vlm.media.video.reader import open_video

Turn = Callable[[np.ndarray], np.ndarray]
ONE = 1 << 16
# The four numbers (a, b, c, d) of a display matrix, by which (x, y) is shown at (a x + c y, b x + d y), and what that
# does to a frame [H, W, 3].
TURNS: dict[str, tuple[tuple[int, int, int, int], Turn]] = {
    "as it lies": ((ONE, 0, 0, ONE), lambda frame: frame),
    "mirrored": ((-ONE, 0, 0, ONE), lambda frame: frame[:, ::-1]),
    "upside down and mirrored": ((ONE, 0, 0, -ONE), lambda frame: frame[::-1]),
    "upside down": ((-ONE, 0, 0, -ONE), lambda frame: frame[::-1, ::-1]),
    "a quarter clockwise": ((0, ONE, -ONE, 0), lambda frame: np.rot90(frame, -1)),
    "a quarter counterclockwise": ((0, -ONE, ONE, 0), lambda frame: np.rot90(frame, 1)),
    "rows and columns exchanged": ((0, ONE, ONE, 0), lambda frame: frame.transpose(1, 0, 2)),
    "exchanged the other way": ((0, -ONE, -ONE, 0), lambda frame: np.rot90(frame, 2).transpose(1, 0, 2)),
}


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write the matrix of the only track of an MP4 file (ISO 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    struct.pack_into(">9i", content, at, matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_display_matrix_turns_and_mirrors(tmp_path: Path, name: str, codec: str) -> None:
    matrix, turn = TURNS[name]
    path = turned(write_video(tmp_path / "a.mp4", range(7), codec=codec), matrix)
    plain = open_video(write_video(tmp_path / "b.mp4", range(7), codec=codec))
    reader = open_video(path)
    for frame, expected in zip(reader.frames([5, 2]), plain.frames([5, 2]), strict=True):
        np.testing.assert_array_equal(np.asarray(frame), turn(np.asarray(expected)))
        assert frame.size == reader.size
    assert reader.notes == []
    for decoder in (PyavDecoder(path), SequentialDecoder(path)):
        ((_, pixels),) = decoder.frames([4])
        np.testing.assert_array_equal(pixels, turn(np.asarray(plain.frames([4])[0])))


@pytest.mark.parametrize("name", TURNS)
def test_the_display_matrix_is_read_as_ffmpeg_reads_it(tmp_path: Path, name: str) -> None:
    path = turned(write_video(tmp_path / "a.mp4", range(5)), TURNS[name][0])
    reader = open_video(path)
    np.testing.assert_array_equal(np.stack(reader.frames(range(5))), frames_of(path, reader.size))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("turn", "codec"), list(product(["flip=horizontal", "rotate=90", "rotate=90:flip=vertical"],
                                                         ["h264"])))  # fmt: skip
def test_a_stream_that_says_itself_how_it_is_turned(tmp_path: Path, suffix: str, turn: str, codec: str) -> None:
    """The message comes with the first frame, and holds for those that follow."""
    plain, path = write_video(tmp_path / "plain.mp4", range(12), gop=4), tmp_path / f"a.{suffix}"
    ffmpeg("-i", plain, "-c", "copy", "-bsf:v", f"{codec}_metadata=display_orientation=insert:{turn}", path)
    reader = open_video(path)
    frame = reader.frames([6])[0]
    np.testing.assert_array_equal(np.asarray(frame), frames_of(path, reader.size)[6])


def test_a_matrix_between_two_quarters_is_told(tmp_path: Path) -> None:
    eighth = round(ONE / 2**0.5)
    path = turned(write_video(tmp_path / "a.mp4", range(3)), (eighth, eighth, -eighth, eighth))
    (note,) = open_video(path).notes
    assert str(path) in note
    assert "no quarter of a turn" in note


def test_decord_refuses_what_is_mirrored(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = turned(write_video(tmp_path / "a.mp4", range(5)), TURNS["mirrored"][0])
    with pytest.raises(BadInput, match="use 'pyav'"):
        open_video(path, "decord", isolated=False).frames([0])


FILM, PREVIEW = (128, 96), (64, 48)


def write_streams(path: Path, streams: list[tuple[tuple[int, int], int, bool]]) -> Path:
    """Streams of (size, frames, whether it is marked as default); frame i shows 100 times its stream plus i."""
    with av.open(str(path), "w") as container:
        made = []
        for size, _, default in streams:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.disposition = av.stream.Disposition.default if default else av.stream.Disposition(0)
            made.append(stream)
        for place, (size, count, _) in enumerate(streams):
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(picture_of(100 * place + number, size), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(made[place].encode(frame))
            container.mux(made[place].encode())
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ([(PREVIEW, 12, False), (FILM, 12, True)], 1),  # what is marked as default
        ([(FILM, 12, True), (PREVIEW, 12, False)], 0),
        ([(PREVIEW, 12, True), (FILM, 12, False)], 0),
        ([(PREVIEW, 12, False), (FILM, 12, False)], 1),  # the larger one
        ([(FILM, 12, False), (FILM, 12, False)], 0),  # the first one
        ([(PREVIEW, 1, False), (FILM, 12, True)], 1),  # a film, not a preview of one frame
        ([(FILM, 1, False), (PREVIEW, 12, False)], 1),
        ([(FILM, 1, True), (PREVIEW, 12, False)], 1),
    ],
)
def test_the_film_is_chosen_among_streams(
    tmp_path: Path, suffix: str, streams: list[tuple[tuple[int, int], int, bool]], expected: int
) -> None:
    path = write_streams(tmp_path / f"a.{suffix}", streams)
    marks = [marked for _, _, marked in streams]
    if (suffix == "ts" and marks == [True, False]) or (suffix == "mp4" and streams[0][1] > 1 and not any(marks)):
        pytest.skip("a transport stream marks no stream as default, an MP4 file always one")
    reader = open_video(path)
    assert len(reader.times_N) == 12
    assert [number_seen(frame) for frame in reader.frames([0, 7])] == [100 * expected, 100 * expected + 7]
    assert reader.size == streams[expected][0]
    width, height = reader.size
    said = f"{path}: 2 video streams, stream {expected} of {width}x{height} pixels is used"
    assert reader.notes == [said]
    assert open_media(path).notes == (said,)
    if streams[1 - expected][1] > 1:
        shown = frames_of(path, reader.size)
        assert [number_seen(frame) for frame in shown[[0, 7]]] == [100 * expected, 100 * expected + 7]


def test_decord_refuses_a_file_of_several_streams(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = write_streams(tmp_path / "a.mp4", [(PREVIEW, 12, False), (FILM, 12, True)])
    with pytest.raises(BadInput, match="use 'pyav'"):
        open_video(path, "decord", isolated=False).frames([0])


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p10le"])
@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc", "unknown"])
@pytest.mark.parametrize("extent", ["tv", "pc"])
def test_matrix_and_range_are_read_as_ffmpeg_reads_them(tmp_path: Path, pixels: str, matrix: str, extent: str) -> None:
    coded = "bt601" if matrix == "unknown" else matrix
    filters = f"scale=out_color_matrix={coded}:out_range={extent},format={pixels},setparams=colorspace={matrix}"
    path = tmp_path / "a.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "smptebars=size=160x96:rate=10", "-t", "0.3", "-vf", f"{filters}:range={extent}",
        "-colorspace", matrix, "-color_range", extent, "-c:v", "libx264", "-crf", "4", path,
    )  # fmt: skip
    reader = open_video(path)
    difference = np.abs(np.stack(reader.frames(range(3))).astype(int) - frames_of(path, reader.size))
    assert difference.max() <= 2
    assert reader.notes == []


def test_interlaced_frames_are_those_of_ffmpeg(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", range(8), interlaced=True, options={"x264-params": "interlaced=1"})
    reader = open_video(path)
    np.testing.assert_array_equal(np.stack(reader.frames(range(8))), frames_of(path, reader.size))

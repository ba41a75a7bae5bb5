"""High dynamic range comes out as its ordinary version looks, and it is told."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from oracle import ffmpeg, frames_of

from vlm.errors import BadInput
from vlm.media.open import open_media
from vlm.media.video.reader import open_video
from vlm.media.video.tone_mapping import TRANSFERS, to_srgb

WHITE = 203.0
COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (128, 128, 128),
     (200, 120, 60), (255, 255, 255), (30, 60, 20), (0, 0, 0), (90, 180, 240)], np.uint8,
)  # fmt: skip
CHART = np.repeat(np.repeat(COLOURS.reshape(3, 4, 3), 16, axis=0), 16, axis=1)
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087


def light_of(srgb_HW3: np.ndarray) -> np.ndarray:
    """Linear light in units of reference white, primaries of BT.709 (IEC 61966-2-1)."""
    coded = srgb_HW3 / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def pq(light_HW3: np.ndarray) -> np.ndarray:
    """BT.2100, table 4: light in BT.709 as R'G'B' in BT.2020, 0..1."""
    root = (light_HW3 @ TO_BT2020.T * WHITE / 10000).clip(0) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)


def hlg(light_HW3: np.ndarray) -> np.ndarray:
    """BT.2100, table 5, for a display of 1000 cd/m2."""
    shown = (light_HW3 @ TO_BT2020.T * WHITE / 1000).clip(1e-12)
    luminance = (shown @ [0.2627, 0.6780, 0.0593])[..., None]
    scene = (shown * luminance ** (1 / 1.2 - 1)).clip(0, 1)
    logarithm = 0.17883277 * np.log((12 * scene - 0.28466892).clip(1e-12)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm)


CODED = {"PQ": (16, pq), "HLG": (18, hlg)}


def write_hdr(path: Path, coded_HW3: np.ndarray, transfer: int, codec: str, pixels: str, primaries: int = 9) -> Path:
    """Three equal frames of R'G'B' in 0..1."""
    height, width = coded_HW3.shape[:2]
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none:lossless=1"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, primaries
        context.colorspace, context.color_range = (9, 1) if pixels.startswith("yuv") else (0, 2)
        levels = np.round(coded_HW3 * 65535).astype(np.uint16)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(levels, format="rgb48le")
            if pixels.startswith("yuv"):
                frame = frame.reformat(format=pixels, dst_colorspace=9, dst_color_range=1)
            else:
                frame = frame.reformat(format=pixels)
            frame.color_trc, frame.color_primaries = transfer, primaries
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", CODED)
@pytest.mark.parametrize(("codec", "pixels"), [("ffv1", "gbrp16le"), ("libx265", "yuv444p10le")])
@pytest.mark.parametrize("isolated", [True, False])
def test_a_chart_at_reference_white_keeps_its_colours(
    tmp_path: Path, kind: str, codec: str, pixels: str, isolated: bool
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    transfer, code = CODED[kind]
    path = write_hdr(tmp_path / "a.mkv", code(light_of(CHART)), transfer, codec, pixels)
    reader = open_video(path, isolated=isolated)
    frame = np.asarray(reader.frames([1])[0]).astype(int)
    assert np.abs(frame - CHART).max() <= (3 if codec == "ffv1" else 20)  # 10 bits are few for a dark blue
    assert np.abs(frame - CHART).mean() < 2
    assert reader.notes == [f"{path}: high dynamic range ({kind}), tone-mapped to sRGB"]
    assert open_media(path).notes == tuple(reader.notes)
    assert reader.thumbnails([0])[0, 26, 4].min() > 230  # white


@pytest.mark.parametrize("kind", CODED)
def test_highlights_are_rolled_off_and_what_is_below_white_hardly_changes(kind: str) -> None:
    transfer, code = CODED[kind]
    light_HW3 = light_of(CHART)
    light_HW3[:16, :16] = 4.8  # a lamp of about 970 cd/m2
    light_HW3[16:32, :16] = 2.5
    levels = np.round(code(light_HW3) * 65535).astype(np.uint16)
    frame = to_srgb(levels, transfer, 9).astype(int)
    lamp, lesser, white, gray = frame[8, 8], frame[24, 8], frame[40, 8], frame[24, 40]
    assert lamp.min() >= 253
    assert white.max() < lesser.max() < lamp.max()
    assert white.min() >= 215
    assert np.abs(gray - 128).max() <= 3
    rest = np.abs(frame - CHART)[16:]
    assert rest[:, 16:].max() <= 40
    assert np.ptp(lesser) <= 2  # no hue turns


def test_values_the_screen_has_not_are_the_nearest_it_has() -> None:
    """A green of BT.2020 lies outside sRGB; codes over the range are its end."""
    levels = np.array([[[0, 38000, 0], [65535, 65535, 65535], [0, 0, 0]]], np.uint16)
    red, green, blue = to_srgb(levels, 16, 9)[0, 0]
    assert (red, blue) == (0, 0)
    assert green > 50
    np.testing.assert_array_equal(to_srgb(levels, 16, 9)[0, 1:], [[255] * 3, [0] * 3])


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_primaries_of_bt709_stay(transfer: int) -> None:
    levels = np.array([[[20000, 0, 0]]], np.uint16)
    assert to_srgb(levels, transfer, 1)[0, 0, 1:].max() == 0
    assert to_srgb(levels, transfer, 9)[0, 0, 0] > to_srgb(levels, transfer, 1)[0, 0, 0]
    np.testing.assert_array_equal(to_srgb(levels, transfer, 2), to_srgb(levels, transfer, 9))


def test_wide_primaries_alone_are_no_high_range(tmp_path: Path) -> None:
    path = write_hdr(tmp_path / "a.mkv", CHART / 255, 14, "ffv1", "gbrp16le")
    reader = open_video(path)
    assert np.abs(np.asarray(reader.frames([1])[0]).astype(int) - CHART).max() <= 1
    assert reader.notes == []


def test_decord_refuses_high_dynamic_range(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = write_hdr(tmp_path / "a.mp4", pq(light_of(CHART)), 16, "libx264", "yuv420p")
    with pytest.raises(BadInput, match="high dynamic range"):
        open_video(path, "decord", isolated=False).frames([0])


@pytest.mark.parametrize(("transfer", "most"), [("smpte2084", 2.0), ("arib-std-b67", 6.0)])
def test_a_photograph_is_near_to_what_ffmpeg_makes_of_it(tmp_path: Path, transfer: str, most: float) -> None:
    """FFmpeg's zscale takes HLG's curve from scene to display for each channel alone, which BT.2100 does not."""
    photograph = Path(__file__).parents[3] / "data" / "samples" / "cat.jpg"
    to_light = "zscale=t=linear:npl=203,format=gbrpf32le"
    path = tmp_path / "a.mp4"
    ffmpeg(
        "-i", photograph, "-vf",
        "crop=320:240,format=gbrp,setparams=color_primaries=bt709:color_trc=iec61966-2-1:colorspace=gbr:range=full,"
        f"{to_light},zscale=p=bt2020,zscale=t={transfer}:m=bt2020nc:r=limited:npl=203,format=yuv420p10le",
        "-c:v", "libx265", "-x265-params", "log-level=none:crf=8", path,
    )  # fmt: skip
    shown = ffmpeg(
        "-i", path, "-vf",
        f"{to_light},zscale=p=bt709,tonemap=clip:desat=0,zscale=t=iec61966-2-1:m=gbr:r=full,format=gbrp",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-",
    )  # fmt: skip
    expected = np.frombuffer(shown, np.uint8).reshape(240, 320, 3).astype(int)
    frame = np.asarray(open_video(path).frames([0])[0]).astype(int)
    assert np.abs(frame - expected).mean() < most
    assert np.abs(frames_of(path, (320, 240))[0] - expected).mean() > 2 * most  # what it would be without

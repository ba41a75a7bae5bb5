"""Samples of more than eight bits: tones stay, whatever range they are written in, and a key is the whole number."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, png, tiff
from PIL import Image

from vlm.media.images import load_image

Y, X = np.mgrid[0:32, 0:48]
TONES = np.round((X + Y) * 255 / 78).astype(np.uint8)
"""[32, 48]: from black to white."""
COLOURS = np.stack([TONES, TONES[::-1], TONES[:, ::-1]], axis=-1)


def loaded(source: bytes | Path | Image.Image) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return np.asarray(load_image(source, notes=notes)).astype(int), notes


def deep(tones: np.ndarray, white: int) -> np.ndarray:
    return np.round(tones / 255 * white).astype(np.uint16)


@pytest.mark.parametrize("write", [png, tiff])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_bits_in_sixteen(write: object, bits: int, channels: int) -> None:
    if write is tiff and channels == 2:
        pytest.skip("Pillow reads no such TIFF")
    white = 2**bits - 1
    tones = {1: TONES, 2: np.stack([TONES, 0 * TONES + 255], axis=-1), 3: COLOURS}
    tones[4] = np.concatenate([COLOURS, 255 + 0 * TONES[..., None]], axis=-1)
    pixels, notes = loaded(write(deep(tones[channels], white)))  # type: ignore[operator]
    expected = COLOURS if channels > 2 else np.repeat(TONES[..., None], 3, axis=-1)
    # Of gray with alpha Pillow has the high byte alone.
    assert np.abs(pixels - expected).max() <= (1 if channels != 2 or bits == 16 else 2 ** max(0, 16 - bits))
    assert len(notes) == (bits < 16)
    if notes:
        assert notes == [f"image bytes: 16 bits a sample with none above {white}, which is taken for white"]


def test_sixteen_bits_keep_their_high_byte() -> None:
    gray = np.arange(0, 65536, 43, dtype=np.uint16)[:1500].reshape(30, 50)
    for data in (png(gray), tiff(gray), tiff(gray, order=">"), encoded(Image.fromarray(gray), "TIFF")):
        np.testing.assert_array_equal(loaded(data)[0][..., 0], gray >> 8)


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_a_tiff_says_of_its_white_is_taken(order: str) -> None:
    """14 bits are not guessed."""
    data = tiff(deep(TONES, 16383), order=order, tags={281: 16383})
    pixels, notes = loaded(data)
    assert np.abs(pixels[..., 0] - TONES).max() <= 1
    assert "none above 16383" in notes[0]
    assert loaded(tiff(deep(TONES, 16383)))[0].max() == 63
    packed = np.unpackbits(deep(TONES, 4095).astype(">u2").view(np.uint8).reshape(32, 48, 2), axis=-1)[..., 4:]
    rows = np.packbits(packed.reshape(32, -1), axis=-1)  # two samples in three bytes
    data = tiff(rows, tags={256: 48, 258: 12})
    pixels, notes = loaded(data)
    assert np.abs(pixels[..., 0] - TONES).max() <= 1
    assert notes == []


def test_a_dark_picture_stays_dark() -> None:
    """Its low bits are not used, as where 12 bits were brought up to 16 (PNG, sBIT)."""
    dark = (TONES.astype(np.uint16) >> 4) << 8
    for data in (png(dark, chunks=[(b"sBIT", b"\x08")]), tiff(dark)):
        pixels, notes = loaded(data)
        assert pixels.max() == 15
        assert notes == []
    assert loaded(png(np.zeros((4, 4), np.uint16)))[1] == []


def test_formats_that_say_their_white() -> None:
    header = b"P5 48 32 4095\n"
    pixels, notes = loaded(header + deep(TONES, 4095).astype(">u2").tobytes())
    assert np.abs(pixels[..., 0] - TONES).max() <= 1
    assert notes == []
    dark = header + deep(TONES // 64, 4095).astype(">u2").tobytes()
    assert loaded(dark)[0].max() <= 3


@pytest.mark.parametrize("packing", ["tiff_deflate", "tiff_lzw", "packbits"])
def test_compressed_tiff(packing: str) -> None:
    image = Image.fromarray(deep(TONES, 4095))
    pixels, notes = loaded(encoded(image, "TIFF", compression=packing))
    assert np.abs(pixels[..., 0] - TONES).max() <= 1
    assert len(notes) == 1


def test_compressed_tiff_of_colours() -> None:
    package = pytest.importorskip("imageio_ffmpeg", reason="the package imageio-ffmpeg is not installed")
    source = "-v error -f rawvideo -pix_fmt rgb48le -s 48x32 -i - -f image2pipe -c:v".split()
    for target in (["tiff", "-compression_algo", "deflate"], ["tiff", "-compression_algo", "lzw"], ["png"]):
        command = [package.get_ffmpeg_exe(), *source, *target, "-"]
        raw = deep(COLOURS, 4095).astype("<u2").tobytes()
        data = subprocess.run(command, input=raw, capture_output=True, check=True).stdout
        pixels, notes = loaded(data)
        assert np.abs(pixels - COLOURS).max() <= 1
        assert len(notes) == 1


FLOATS = [
    (0.0, 1.0, 0),
    (0.0, 255.0, 1),
    (0.0, 4095.0, 1),
    (0.0, 65535.0, 1),
    (0.0, 7.5, 1),
    (0.0, 3.0e9, 1),
    (-1.0, 1.0, 1),
    (-128.0, 127.0, 1),
    (-3.0, -1.0, 1),
    (-30000.0, 70000.0, 1),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("least", "most", "told"), FLOATS)
def test_floats_of_any_range(least: float, most: float, told: int, order: str) -> None:
    values = (least + TONES / 255 * (most - least)).astype(np.float32)
    for source in (tiff(values, order=order), Image.fromarray(values)):
        pixels, notes = loaded(source)
        assert np.abs(pixels[..., 0] - TONES).max() <= 1
        assert len(notes) == told
    if told:
        assert f"values from {least:g} to {most:g}" in notes[0]


def test_floats_that_do_not_use_their_range() -> None:
    for white in (1.0, 255.0, 65535.0):
        values = (TONES / 255 * white * 0.7).astype(np.float32)
        assert np.abs(loaded(tiff(values))[0][..., 0] - TONES * 0.7).max() <= 1


def test_floats_a_little_beyond() -> None:
    """What a resize with a sharp filter leaves."""
    values = (-0.02 + TONES / 255 * 1.05).astype(np.float32)
    pixels, notes = loaded(tiff(values))
    assert np.abs(pixels[..., 0] - (values * 255).clip(0, 255)).max() <= 1
    assert notes == []


def test_what_is_no_number_is_black_and_told() -> None:
    values = (TONES / 255).astype(np.float32)
    values[:4] = np.nan
    values[4, 0], values[4, 1] = np.inf, -np.inf
    pixels, notes = loaded(tiff(values))
    assert pixels[:4].max() == 0
    assert (pixels[4, 0, 0], pixels[4, 1, 0]) == (255, 0)
    assert np.abs(pixels[5:, :, 0] - TONES[5:]).max() <= 1
    assert notes == ["image bytes: 192 values that are no numbers, shown as black"]
    assert loaded(tiff(np.full((4, 4), np.nan, np.float32)))[0].max() == 0
    values = (TONES + 300.0).astype(np.float32)
    values[0] = -9999  # as GDAL marks what was not measured
    pixels, notes = loaded(tiff(values, tags={42113: b"-9999\0"}))
    assert pixels[0].max() == 0
    assert pixels[1:].max() > 100
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [(np.uint32, 0, 2**32 - 1), (np.int32, 0, 2**31 - 1), (np.int32, -(2**31), 2**31 - 1), (np.uint32, 0, 65535),
     (np.uint32, 0, 4095), (np.uint32, 0, 255), (np.int16, 0, 32767), (np.int16, -32768, 32767)],
)  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_whole_numbers(kind: type, least: int, most: int, order: str) -> None:
    if order == ">" and kind is np.uint32:
        pytest.skip("Pillow reads no such TIFF")
    values = np.round(least + TONES / 255 * (float(most) - least)).clip(least, most).astype(kind)
    pixels, notes = loaded(tiff(values, order=order))
    white = 65535 if most == 32767 and least == 0 else most  # signed numbers may be of 16 bits
    expected = TONES * (32767 / 65535) if white != most else TONES
    assert np.abs(pixels[..., 0] - expected).max() <= 1
    assert len(notes) == (most != 255)


def test_white_is_zero() -> None:
    for values in (deep(TONES, 65535), deep(TONES, 4095)):
        pixels, _ = loaded(tiff(values, tags={262: 0}))
        assert np.abs(pixels[..., 0] - (255 - TONES.astype(int))).max() <= 1
    pixels, _ = loaded(tiff((TONES / 255).astype(np.float32), tags={262: 0}))
    assert np.abs(pixels[..., 0] - (255 - TONES.astype(int))).max() <= 1
    np.testing.assert_array_equal(loaded(tiff(TONES, tags={262: 0}))[0][..., 0], 255 - TONES.astype(int))


def key(*values: int) -> tuple[bytes, bytes]:
    return b"tRNS", struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_gray_key_is_transparent(bits: int) -> None:
    """And nothing near it: 4660 and 4661 have the high byte in common."""
    white = 2**bits - 1
    dark = {1: 0, 2: 1, 4: 3, 8: 18, 16: 0x1234}[bits]
    gray = np.full((16, 16), white, np.uint16)
    gray[:8], gray[8:, 8:] = dark, dark + 1
    pixels, notes = loaded(png(gray, bits=bits, chunks=[key(dark)]))
    assert (pixels[:8] == 255).all()
    assert np.abs(pixels[8:, 8:] - (dark + 1) * 255 / white).max() <= 1
    assert (pixels[8:, :8] == 255).all()
    assert notes == []


def test_a_key_of_colours_is_all_of_its_bits() -> None:
    pixels_HW3 = np.full((8, 8, 3), (4000, 60000, 20), np.uint16)
    pixels_HW3[4:, :, 2] = 21
    pixels, _ = loaded(png(pixels_HW3, chunks=[key(4000, 60000, 20)]))
    assert (pixels[:4] == 255).all()
    np.testing.assert_array_equal(pixels[4, 4], [15, 234, 0])
    pixels, _ = loaded(png(pixels_HW3 >> 8, bits=8, chunks=[key(15, 234, 0)]))
    assert (pixels == 255).all()


def test_alpha_of_sixteen_bits() -> None:
    half = np.zeros((8, 8, 2), np.uint16)
    half[..., 1] = 32768
    half[0, 0, 0] = 65535
    assert abs(loaded(png(half))[0][4, 4, 0] - 127) <= 1
    colour = np.zeros((8, 8, 4), np.uint16)
    colour[..., 0], colour[..., 3] = 60000, 32768
    assert np.abs(loaded(png(colour))[0][4, 4] - (244, 127, 127)).max() <= 1


def test_twelve_bits_whose_alpha_has_sixteen() -> None:
    deep_HW4 = np.concatenate([deep(COLOURS, 4095), np.full((32, 48, 1), 65535, np.uint16)], axis=-1)
    pixels, notes = loaded(png(deep_HW4))
    assert np.abs(pixels - COLOURS).max() <= 1
    assert len(notes) == 1


def test_deep_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.rot90(TONES, -1)
    chunk = (b"eXIf", exif.tobytes()[6:])
    for data in (
        png(deep(TONES, 65535), chunks=[chunk]),
        png(deep(COLOURS, 4095), chunks=[chunk]),
        tiff(deep(TONES, 4095), tags={274: 6}),
        tiff((TONES / 255).astype(np.float32), tags={274: 6}),
    ):
        pixels, _ = loaded(data)
        assert np.abs(pixels[..., 0] - upright).max() <= 1
        assert load_image(data).getexif().get(0x0112, 1) == 1


def test_a_pil_image_is_left_as_it_was() -> None:
    data = png(np.array([[3, 1], [1, 1]], np.uint8), bits=2, chunks=[key(3)])
    given = Image.open(io.BytesIO(data))
    assert load_image(given).getpixel((0, 0)) == (255, 255, 255)
    assert given.info["transparency"] == 3
    floats = Image.fromarray((TONES * 2.0).astype(np.float32))
    load_image(floats)
    np.testing.assert_array_equal(np.asarray(floats), TONES * 2.0)

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm.errors import BadInput
from vlm.media import images
from vlm.media.images import MAX_PIXELS, is_image, is_video, list_media, load_image


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def refusal(source: object) -> str:
    with pytest.raises(BadInput) as caught:
        load_image(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("as_source", [str, Path, lambda path: path.read_bytes(), Image.open])
def test_every_kind_of_source(tmp_path: Path, as_source: object) -> None:
    path = tmp_path / "a.png"
    gradient().save(path)
    image = load_image(as_source(path))  # type: ignore[operator]
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(gradient()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_formats(kind: str) -> None:
    image = load_image(encoded(gradient(), kind))
    assert (image.mode, image.size) == ("RGB", (48, 32))
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(gradient(), dtype=int)).mean() < 30


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (7, 8, 9)).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.size == (1, 1)
    assert image.getpixel((0, 0)) == (7, 8, 9)


def test_cmyk_jpeg() -> None:
    image = load_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = image.getpixel((4, 4))  # type: ignore[misc]
    assert (red > 200, green < 60, blue < 60) == (True, True, True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_tones(kind: str) -> None:
    gray = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    image = load_image(encoded(Image.fromarray(gray), kind))
    np.testing.assert_array_equal(np.asarray(image)[..., 0], gray >> 8)


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert load_image(encoded(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert load_image(encoded(half, "PNG")).getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 1)
    image = load_image(encoded(palette, "PNG", transparency=0))
    assert image.getpixel((0, 0)) == (200, 100, 50)
    assert image.getpixel((1, 1)) == (255, 255, 255)
    gray = Image.new("LA", (4, 4), (0, 0))
    assert load_image(encoded(gray, "PNG")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encoded(gradient(), "JPEG", exif=exif))
    assert image.size == ((48, 32) if orientation < 5 else (32, 48))
    assert image.getexif().get(0x0112, 1) == 1


def test_a_pil_image_is_left_as_it_was() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    given = Image.open(io.BytesIO(encoded(gradient(), "JPEG", exif=exif)))
    assert load_image(given).size == (32, 48)
    assert given.size == (48, 32)
    assert load_image(given).size == (32, 48)


def test_animated_takes_the_first_frame_and_says_so() -> None:
    notes: list[str] = []
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        image = load_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), notes=notes)
        red, _, blue = image.getpixel((3, 3))  # type: ignore[misc]
        assert red > 200 > 50 > blue
    assert len(notes) == 3
    assert "first" in notes[0]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays(shape: tuple[int, ...]) -> None:
    assert load_image(np.full(shape, 255, dtype=np.uint8)).size == (7, 5)
    assert load_image(np.ones(shape, dtype=np.float32)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 5, 7), dtype=np.uint8),
        np.zeros((0, 5, 3), dtype=np.uint8),
        np.zeros(9, dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.int64),
        np.full((4, 4, 3), 2.0),
        np.full((4, 4, 3), np.nan),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray) -> None:
    assert "array: expected" in refusal(array)


def test_missing_folder_empty_and_foreign(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello, this is a letter")
    assert "no such file" in refusal(tmp_path / "none.jpg")
    assert "folder" in refusal(tmp_path)
    assert "empty" in refusal(tmp_path / "empty.jpg")
    message = refusal(tmp_path / "text.jpg")
    assert str(tmp_path / "text.jpg") in message
    assert "hello" in message
    assert "got nothing" in refusal(b"")
    assert "NoneType" in refusal(None)
    refusal("a\0b")
    refusal("x" * 5000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated(kind: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = encoded(noise, kind)
    assert "image bytes: expected" in refusal(whole[: max(20, int(len(whole) * part))])


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged EXIF
def test_no_file_makes_anything_but_bad_input() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"):
        whole = bytearray(encoded(gradient(), kind))
        for _ in range(40):
            broken = bytearray(whole)
            for position in rng.integers(0, min(len(whole), 200), size=4):
                broken[position] = rng.integers(0, 256)
            with contextlib.suppress(BadInput):
                assert load_image(bytes(broken)).mode == "RGB"


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    assert "48x32" in refusal(encoded(gradient(), "PNG"))
    assert "1000" in refusal(gradient())
    assert "1000" in refusal(np.zeros((32, 48), dtype=np.uint8))
    notes: list[str] = []
    assert load_image(encoded(gradient(), "JPEG"), notes=notes).size == (24, 16)
    assert "48x32 decoded at 24x16" in notes[0]
    assert "48x32" in refusal(encoded(gradient(), "JPEG", progressive=True))  # its decoder holds the full size


@pytest.mark.process
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_20000_by_20000_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    """The picture would take 400 MB as gray and 1.6 GB as RGB; the process may grow by a fraction of that."""
    path = tmp_path / f"huge.{kind.lower()}"
    make = f"Image.new({'1' if kind == 'PNG' else 'L'!r}, (20000, 20000)).save({str(path)!r}, {kind!r})"
    subprocess.run([sys.executable, "-c", f"from PIL import Image; {make}"], check=True)
    code = f"""
        import resource, warnings
        warnings.simplefilter("error")
        from PIL import Image
        from vlm.errors import BadInput
        from vlm.media.images import load_image
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        limit, notes = Image.MAX_IMAGE_PIXELS, []
        try:
            print(load_image({str(path)!r}, notes=notes).size, notes)
        except BadInput as error:
            print(error)
        assert Image.MAX_IMAGE_PIXELS == limit
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    said, grown_mb = ran.stdout.strip().splitlines()
    assert int(grown_mb) < 150
    if kind == "JPEG":
        assert "(5000, 5000)" in said
        assert "20000x20000 decoded at 5000x5000" in said
    else:
        assert f"at most {MAX_PIXELS} pixels, got 20000x20000" in said


def test_no_warning_escapes(tmp_path: Path) -> None:
    Image.new("1", (10000, 10000)).save(tmp_path / "big.png")  # over Pillow's own limit, where it warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "10000x10000" in refusal(tmp_path / "big.png")


def test_media_by_suffix(tmp_path: Path) -> None:
    assert is_image("a/b.JPG")
    assert not is_image("b.mp4")
    assert is_video(Path("b.MKV"))
    assert not is_video("video")
    for name in ("b.jpg", "sub/a.png", "sub/c.mp4", "notes.txt", ".hidden/d.jpg", "._b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_media(tmp_path) == [tmp_path / "b.jpg", tmp_path / "sub/a.png", tmp_path / "sub/c.mp4"]


def test_media_folder_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none of either"):
        list_media(tmp_path)
    with pytest.raises(BadInput, match="nothing there"):
        list_media(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(BadInput, match="got a file"):
        list_media(tmp_path / "a.txt")

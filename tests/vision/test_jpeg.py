"""The faster ways from a JPEG to pixels stay near the plain one, and refuse what it refuses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from folders import SIZES, photograph
from PIL import Image, ImageCms

from vlm.errors import BadInput
from vlm.vision import jpeg
from vlm.vision.jpeg import read_pixels
from vlm.vision.transforms import Framing

LEVEL = 1 / 255 / 0.5
"""One of 255 levels, normalised by the deviation of the tiny tower."""
SAMPLES = sorted((Path(__file__).parents[2] / "data" / "samples").glob("*.jpg"))


def coded(width: int, height: int, **options: Any) -> bytes:
    stream = io.BytesIO()
    mode = options.pop("mode", "RGB")
    photograph(width, height).convert(mode).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return coded(600, 400, exif=exif)


@pytest.fixture
def no_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("the plain way was taken")

    monkeypatch.setattr(jpeg, "load_image", refuse)


@pytest.mark.parametrize("framing", [Framing(), Framing(resize="shortest", side=73), Framing(resize="longest")])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_fast_is_within_two_levels(framing: Framing, interpolation: str, request: pytest.FixtureRequest) -> None:
    cfg = tiny.TOWER.model_copy(update={"framing": framing, "interpolation": interpolation})
    pictures = [coded(*size) for size in SIZES] + [path.read_bytes() for path in SAMPLES[:4]]
    plain = read_pixels(pictures, cfg)
    request.getfixturevalue("no_plain_way")
    difference = (read_pixels(pictures, cfg, "fast") - plain).abs()
    assert difference.max() < 2.01 * LEVEL
    assert (difference > 0.5 * LEVEL).float().mean() < 0.05


@pytest.mark.parametrize(
    "picture",
    [*(turned(number) for number in range(1, 9)), coded(300, 200, mode="L"), coded(301, 203, progressive=True)],
)
@pytest.mark.usefixtures("no_plain_way")
def test_orientation_gray_and_progressive_are_as_pillow_has_them(picture: bytes) -> None:
    from vlm.media.images import load_image
    from vlm.vision.transforms import to_pixels

    plain = to_pixels([load_image(picture)], 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    for way in ("fast", "scaled"):
        difference = (read_pixels([picture], tiny.TOWER, way) - plain).abs()  # type: ignore[arg-type]
        assert difference.mean() < 1.5 * LEVEL


def test_scaled_decodes_less_and_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [coded(1500, 1100), coded(90, 80), coded(600, 130)]
    plain, fast = read_pixels(pictures, tiny.TOWER), read_pixels(pictures, tiny.TOWER, "fast")
    decoded: list[tuple[int, ...]] = []
    by_pillow = jpeg._by_pillow

    def seen(image: Image.Image) -> torch.Tensor:
        decoded.append(image.size)
        return by_pillow(image)

    monkeypatch.setattr(jpeg, "_by_pillow", seen)
    scaled = read_pixels(pictures, tiny.TOWER, "scaled")
    assert decoded == [(188, 138)]  # an eighth: the others have no pixels to spare
    assert (scaled - plain).abs().mean() < 1.5 * LEVEL
    assert torch.equal(scaled[1:], fast[1:])


def test_pillow_decodes_where_torchvision_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [coded(301, 203), turned(6)]
    fast = read_pixels(pictures, tiny.TOWER, "fast")
    monkeypatch.delattr("torchvision.io.decode_jpeg")
    assert torch.equal(read_pixels(pictures, tiny.TOWER, "fast"), fast)


def test_others_take_the_plain_way(tmp_path: Path) -> None:
    photograph(50, 40).save(tmp_path / "a.png")
    photograph(50, 40).convert("CMYK").save(tmp_path / "b.jpg")
    paths = [tmp_path / "a.png", tmp_path / "b.jpg"]
    assert torch.equal(read_pixels(paths, tiny.TOWER, "fast"), read_pixels(paths, tiny.TOWER))


@pytest.mark.parametrize("way", ["plain", "fast", "scaled"])
def test_damaged_pictures_are_refused(way: Any, tmp_path: Path) -> None:
    whole = coded(1200, 900)
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "header.jpg").write_bytes(whole[:30])
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut", "header", "empty", "absent"):
        with pytest.raises(BadInput, match=f"{name}.jpg"):
            read_pixels([tmp_path / f"{name}.jpg"], tiny.TOWER, way)


def test_a_budget_is_refused() -> None:
    with pytest.raises(BadInput, match="key budget"):
        read_pixels([], tiny.TOWER.model_copy(update={"budget": 9}))


@pytest.mark.parametrize("way", ["fast", "scaled"])
def test_colours_other_than_srgb_s_are_those_of_the_plain_way(way: Any) -> None:
    sharper = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The middle column of its matrix: green becomes another colour.
    start = int.from_bytes(sharper[sharper.index(b"gXYZ") + 4 :][:4], "big")
    other = sharper[: start + 8] + (20000).to_bytes(4, "big") + sharper[start + 12 :]
    picture, plain = coded(1200, 900, icc_profile=other), coded(1200, 900)
    found = read_pixels([picture], tiny.TOWER, way)
    assert torch.equal(found, read_pixels([picture], tiny.TOWER))
    assert (found - read_pixels([plain], tiny.TOWER)).abs().mean() > LEVEL


@pytest.mark.usefixtures("no_plain_way")
def test_srgb_s_own_profile_takes_the_fast_way() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tagged, plain = coded(300, 200, icc_profile=profile), coded(300, 200)
    assert torch.equal(read_pixels([tagged], tiny.TOWER, "fast"), read_pixels([plain], tiny.TOWER, "fast"))

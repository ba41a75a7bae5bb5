"""A picture's numbers mean what its colour profile says. Truth: the profile's own arithmetic, and littleCMS."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import ADOBE, P3, SRGB, encoded, press_profile, profile, tiff, to_xyz
from PIL import Image, ImageCms

from vlm.media import colour
from vlm.media.images import load_image

SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def colours() -> np.ndarray:
    """uint8 [64, 96, 3] within every space here."""
    y, x = np.mgrid[0:64, 0:96]
    return np.stack([40 + 2 * x, 60 + 2 * y, 220 - x - y], axis=-1).clip(0, 255).astype(np.uint8)


def written_in(pixels: np.ndarray, primaries: Any, gamma: float) -> np.ndarray:
    """sRGB pixels as the numbers that mean them in another space."""
    coded = pixels / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    other = light @ (np.linalg.inv(to_xyz(primaries)) @ to_xyz(SRGB)).T
    return np.round(other.clip(0, 1) ** (1 / gamma) * 255).astype(np.uint8)


def by_little_cms(image: Image.Image, content: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(content))
    found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(found)


def loaded(content: bytes | Image.Image) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return np.asarray(load_image(content, notes=notes)).astype(int), notes


@pytest.mark.parametrize(("primaries", "gamma"), [(ADOBE, 2.2), (P3, 2.2), (SRGB, 1.8), (P3, 1.0)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_numbers_of_another_space_are_brought_to_srgb(primaries: Any, gamma: float, kind: str) -> None:
    content, options = (
        profile(primaries, gamma),
        {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}, "AVIF": {"quality": 100}},
    )
    other = Image.fromarray(written_in(colours(), primaries, gamma))
    data = encoded(other, kind, icc_profile=content, **options.get(kind, {}))
    pixels, notes = loaded(data)
    exact = kind not in ("JPEG", "AVIF") and gamma > 1
    assert np.abs(pixels - colours()).mean() < (1 if exact else 4)
    np.testing.assert_array_equal(pixels, by_little_cms(Image.open(io.BytesIO(data)).convert("RGB"), content))
    assert notes == []


@pytest.mark.parametrize("alpha", ["RGBA", "P", "key"])
def test_transparency_stays(alpha: str) -> None:
    content = profile(ADOBE, 2.2)
    other = Image.fromarray(written_in(colours(), ADOBE, 2.2))
    if alpha == "RGBA":
        other.putalpha(Image.fromarray(np.where(np.arange(96) < 48, 0, 255).astype(np.uint8)[None].repeat(64, 0)))
        pixels, _ = loaded(encoded(other, "PNG", icc_profile=content))
        assert (pixels[:, :48] == 255).all()
        assert np.abs(pixels[:, 48:] - colours()[:, 48:]).mean() < 1
        return
    flat = Image.new(alpha if alpha == "P" else "RGB", (8, 8))
    if alpha == "P":
        flat.putpalette([200, 30, 30, 0, 0, 0])
        flat.putpixel((0, 0), 1)
        key: object = 1
    else:
        flat.paste((200, 30, 30), (0, 0, 8, 8))
        flat.putpixel((0, 0), (0, 0, 0))
        key = (0, 0, 0)
    pixels, _ = loaded(encoded(flat, "PNG", icc_profile=content, transparency=key))
    assert pixels[0, 0].tolist() == [255] * 3
    expected = by_little_cms(Image.new("RGB", (1, 1), (200, 30, 30)), content)[0, 0]
    np.testing.assert_array_equal(pixels[3, 3], expected)
    assert np.abs(expected.astype(int) - (200, 30, 30)).max() > 10


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_gray(mode: str) -> None:
    content = profile(None, 1.0)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(4, 0))
    pixels, notes = loaded(encoded(ramp.convert(mode), "PNG", icc_profile=content))
    light = np.arange(256) / 255
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(pixels - expected[None, :, None])[:, 16:].max() <= 2  # in the dark littleCMS counts in 8 bits
    np.testing.assert_array_equal(pixels, by_little_cms(ramp, content))
    assert notes == []


def test_cmyk() -> None:
    content = press_profile()
    inks = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 4), dtype=np.uint8), "CMYK")
    pixels, notes = loaded(encoded(inks, "TIFF", icc_profile=content))
    expected = by_little_cms(inks, content)
    np.testing.assert_array_equal(pixels, expected)
    assert np.abs(np.asarray(inks.convert("RGB")).astype(int) - expected).mean() > 15
    paper = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    for kind in ("TIFF", "JPEG"):  # in a JPEG file of Adobe's kind inks are inverted
        white, _ = loaded(encoded(paper, kind, icc_profile=content))
        assert white.min() > 200
    assert notes == []


def test_cielab() -> None:
    """TIFF's own (TIFF 6.0, section 23): L* of 255 levels, a* and b* signed."""
    lab = np.array([[[255, 0, 0], [128, 0, 0], [137, 80, 67], [0, 0, 0]]], np.uint8)
    pixels, notes = loaded(tiff(lab, tags={262: 8}))
    assert pixels[0, 0].min() >= 254
    assert np.ptp(pixels[0, 1]) <= 2
    assert np.abs(pixels[0, 1] - 119).max() <= 2  # L* of 50
    assert np.abs(pixels[0, 2] - (255, 0, 0)).max() <= 12  # near sRGB's red
    assert pixels[0, 3].max() <= 1
    assert notes == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_srgb_s_own_profile_changes_nothing(mode: str) -> None:
    image = Image.fromarray(colours()).convert(mode)
    with_profile = loaded(encoded(image, "PNG", icc_profile=SRGB_PROFILE))
    np.testing.assert_array_equal(with_profile[0], loaded(encoded(image, "PNG"))[0])
    assert with_profile[1] == []
    assert not colour.changes(SRGB_PROFILE)
    assert colour.changes(profile(ADOBE, 2.2))


def test_a_picture_is_converted_once() -> None:
    data = encoded(Image.fromarray(written_in(colours(), ADOBE, 2.2)), "PNG", icc_profile=profile(ADOBE, 2.2))
    once = load_image(data)
    np.testing.assert_array_equal(np.asarray(load_image(once)), np.asarray(once))
    given = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(np.asarray(load_image(given)), np.asarray(once))
    assert given.info["icc_profile"] == profile(ADOBE, 2.2)  # a PIL image is left as it was


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no profile at all", "cannot open profile"),
        (profile(ADOBE, 2.2)[:150], ""),
        (bytes(128), ""),
        (press_profile(), "it is about CMYK pictures, not RGB"),
        (profile(None, 1.0), "it is about L pictures, not RGB"),
        (profile(ADOBE, 2.2).replace(b"RGB ", b"HSV "), "it is about colours of HSV"),
    ],
)
def test_a_profile_that_cannot_be_used_is_told_and_ignored(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(colours()), "PNG", icc_profile=content))
    notes: list[str] = []
    image = load_image(path, notes=notes)
    np.testing.assert_array_equal(np.asarray(image), colours())
    (note,) = notes
    assert note.startswith(f"{path}: its colour profile cannot be used, sRGB is assumed (")
    assert reason in note
    assert "\n" not in note
    load_image(image, notes=notes)
    assert len(notes) == 1


def test_a_profile_of_colours_in_a_gray_picture() -> None:
    """Nothing to tell of where it is sRGB's, as most are."""
    gray = Image.fromarray(colours()[..., 0])
    assert loaded(encoded(gray, "JPEG", icc_profile=SRGB_PROFILE))[1] == []
    assert "not L" in loaded(encoded(gray, "JPEG", icc_profile=profile(ADOBE, 2.2)))[1][0]


def test_a_profile_has_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "MAX_PROFILE_BYTES", 100)
    content = profile(ADOBE, 2.5)
    assert "at most 100 bytes" in loaded(encoded(Image.fromarray(colours()), "PNG", icc_profile=content))[1][0]

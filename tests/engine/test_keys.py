"""Keys of pictures and models: what is seen differently has different keys, and where it came from is not in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm.engine import keys
from vlm.engine.keys import picture_key
from vlm.media.open import Media, open_media
from vlm.models.processor import Layout

MODEL, SALT, LAYOUT = b"m" * 32, b"someone", Layout(((1, 1),))
RGB = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def key(item: Media, layout: Layout = LAYOUT, model: bytes = MODEL, salt: bytes = SALT) -> bytes:
    return picture_key(item, layout, model, salt)


def still(frame: Image.Image, **info: Any) -> Media:
    frame.info.update(info)
    return Media((frame,))


def changed(row: int, column: int, channel: int) -> Image.Image:
    array = RGB.copy()
    array[row, column, channel] ^= 1
    return Image.fromarray(array)


def indexed(entry: int | None = None, mode: str = "RGB", alpha: int = 255) -> Image.Image:
    """A picture of four colours; `entry` is a byte of its palette that is another."""
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(6, 4) % 4).convert("P")
    colours = [byte for n in range(4) for byte in (n * 40, 10, 200, alpha)[: len(mode)]]
    if entry is not None:
        colours[entry] ^= 1
    image.putpalette(colours, mode)
    return image


def turned(orientation: int) -> Media:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", exif=exif)
    return open_media(file.getvalue())


def see_through(alpha: int) -> Image.Image:
    image = Image.fromarray(RGB).convert("RGBA")
    image.putalpha(alpha)
    return image


def clip(*order: int, times: tuple[float, ...] = (0.0, 0.5, 1.0), **more: Any) -> Media:
    frames = [Image.new("RGB", (4, 4), (n * 50, 0, 0)) for n in order]
    return Media(tuple(frames), times[: len(frames)], **more)


FLAT = RGB.tobytes()
BASE = Media((Image.fromarray(RGB),))
DIFFERENT: dict[str, Callable[[], bytes]] = {
    "the picture": lambda: key(BASE),
    "first pixel": lambda: key(still(changed(0, 0, 0))),
    "last pixel": lambda: key(still(changed(5, 3, 2))),
    "wider": lambda: key(still(Image.frombytes("RGB", (6, 4), FLAT))),
    "one row": lambda: key(still(Image.frombytes("RGB", (24, 1), FLAT))),
    "one column": lambda: key(still(Image.frombytes("RGB", (1, 24), FLAT))),
    "gray of the same bytes": lambda: key(still(Image.frombytes("L", (4, 18), FLAT))),
    "gray, wider": lambda: key(still(Image.frombytes("L", (12, 6), FLAT))),
    "other channels": lambda: key(still(Image.frombytes("YCbCr", (4, 6), FLAT))),
    "alpha": lambda: key(still(see_through(255))),
    "other alpha": lambda: key(still(see_through(254))),
    "palette": lambda: key(still(indexed())),
    "other colour": lambda: key(still(indexed(entry=5))),
    "unused colour": lambda: key(still(indexed(entry=11))),
    "its places in gray": lambda: key(still(Image.frombytes("L", (4, 6), indexed().tobytes()))),
    "palette with alpha": lambda: key(still(indexed(mode="RGBA", alpha=7))),
    "other alpha in it": lambda: key(still(indexed(mode="RGBA", alpha=8))),
    "a colour that is see-through": lambda: key(still(indexed(), transparency=1)),
    "another that is": lambda: key(still(indexed(), transparency=2)),
    "each one's alpha": lambda: key(still(indexed(), transparency=b"\0\1")),
    **{f"turn {n}": lambda n=n: key(turned(n)) for n in range(2, 9)},
    "clip": lambda: key(clip(0, 1, 2)),
    "other order": lambda: key(clip(1, 0, 2)),
    "fewer frames": lambda: key(clip(0, 1)),
    "a frame twice": lambda: key(clip(0, 1, 1)),
    "times": lambda: key(clip(0, 1, 2, times=(0.0, 0.5, 1.5))),
    "twice as fast": lambda: key(clip(0, 1, 2, times=(0.0, 0.25, 0.5))),
    "no times": lambda: key(clip(0, 1, 2, timed=False)),
    "of a longer video": lambda: key(clip(0, 1, 2, duration=9.0)),
    "a clip of one frame": lambda: key(replace(BASE, times=(0.0,))),
    "two pictures as one": lambda: key(Media((Image.fromarray(RGB[:3]), Image.fromarray(RGB[3:])))),
    "tiles": lambda: key(BASE, Layout(((2, 1),))),
    "tiles turned": lambda: key(BASE, Layout(((1, 2),))),
    "two grids": lambda: key(BASE, Layout(((1, 1), (1, 1)))),
    "edge": lambda: key(BASE, Layout(((1, 1),), 512)),
    "other edge": lambda: key(BASE, Layout(((1, 1),), 1024)),
    "other model": lambda: key(BASE, model=b"n" * 32),
    "someone else": lambda: key(BASE, salt=b"someone else"),
    "nobody": lambda: key(BASE, salt=b""),
    "salt and model in one": lambda: key(BASE, model=MODEL[1:], salt=SALT + MODEL[:1]),
}


def test_no_two_have_one_key() -> None:
    found = {name: make() for name, make in DIFFERENT.items()}
    assert {len(one) for one in found.values()} == {32}
    by_key: dict[bytes, list[str]] = {}
    for name, one in found.items():
        by_key.setdefault(one, []).append(name)
    assert [names for names in by_key.values() if len(names) > 1] == []
    assert found == {name: make() for name, make in DIFFERENT.items()}


def test_where_a_picture_came_from_is_not_in_its_key(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    for name in ("a.png", "b.png", "c.bmp", "d.webp"):
        image.save(tmp_path / name, lossless=True)
    content = (tmp_path / "a.png").read_bytes()
    opened = [
        *(open_media(tmp_path / name) for name in ("a.png", "b.png", "c.bmp", "d.webp")),
        open_media(str(tmp_path / "a.png")),
        open_media(content),
        open_media(content, name="https://example.org/a.png"),
        open_media(image),
        open_media(RGB),
        turned(1),
    ]
    assert len({item.source for item in opened}) > 5
    assert {key(item) for item in opened} == {key(BASE)}


def test_large_pictures_are_read_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row counts once, wherever a strip ends."""
    monkeypatch.setattr(keys, "STRIP", 8)
    found = {key(BASE), *(key(still(changed(row, 3, 1))) for row in range(6))}
    assert len(found) == 7

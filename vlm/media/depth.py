"""Samples of more than eight bits, and transparent keys among them, before eight bits are left of them.

What a number means is said by few files. So where it is not, the range that is used says it, and a note says so:
8, 10 or 12 bits in 16, and floats in 0..1, 0..255 or 0..65535, or from the least to the greatest there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

_USUAL = (255, 1023, 4095, 65535)
"""White in 8, 10, 12 and 16 bits."""
_SLACK = 1.1
"""How far a resized picture's floats may go beyond white, and a tenth of that below black."""
_DARK = 16
"""Up to so many times 1 floats are a bright picture, not a black one of 255 levels."""
_MIDDLE = np.uint16(0x88)
"""A low byte that is not known."""
_SCALED = ("PPM", "JPEG2000")
"""Formats of which Pillow brings every depth to 16 bits."""
_MAX_SAMPLE, _BITS, _PHOTOMETRIC, _FORMAT, _NO_DATA = 281, 258, 262, 339, 42113
"""Tags of TIFF 6.0, and GDAL's."""

LowBytes = Callable[[], Image.Image | None]
"""The same picture, of each 16-bit sample the low byte; `None` where that cannot be had."""


def packing(image: Image.Image) -> str:
    """How samples lie in the file of a picture not yet loaded, in Pillow's words ("RGB;16B")."""
    for *_, how in getattr(image, "tile", ()):
        return str(how[0] if isinstance(how, tuple) and how else how)
    return ""


def swapped(packed: str) -> str:
    """The packing by which the low bytes of 16-bit samples are taken for the high ones."""
    return packed[:-1] + ("L" if packed.endswith("B") else "B")


def to_8bit(image: Image.Image, packed: str, low: LowBytes, name: str, notes: list[str]) -> Image.Image:
    """`image` (loaded, its samples `packed` so) in a mode of eight bits; a transparent key becomes alpha."""
    tell = Told(name, notes)
    if image.mode.startswith("I;"):
        return _deep_gray(image, tell)
    if image.mode in ("I", "F"):
        return _wide_gray(image, packed, tell)
    if ";16" in packed and not packed.startswith("RGBa") and image.mode in ("RGB", "RGBA"):
        return _deep_colour(image, low, tell)
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int) and packed in ("L;2", "L;4"):
        image = image.copy()
        image.info["transparency"] = key * (85 if packed == "L;2" else 17)  # Pillow brings the samples up, not the key
    return image


class Told:
    """Where a note goes."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name, self._notes = name, notes

    def __call__(self, note: str) -> None:
        self._notes.append(f"{self._name}: {note}")


def _deep_gray(image: Image.Image, tell: Told) -> Image.Image:
    gray_HW = np.asarray(image)
    levels = _levels(_white(image, gray_HW, tell))
    if _tag(image, _PHOTOMETRIC) == 0:  # white is zero, which Pillow reads for 8 bits alone
        levels = 255 - levels
    return _keyed(image, levels[gray_HW], gray_HW[..., None])


def _deep_colour(image: Image.Image, low: LowBytes, tell: Told) -> Image.Image:
    key = image.info.get("transparency")
    high_HWC = np.asarray(image)
    if high_HWC[..., :3].max() >= 16 and key is None:
        return image  # its high bytes are the picture
    rest = low()
    deep_HWC = high_HWC.astype(np.uint16) << 8
    deep_HWC |= _MIDDLE if rest is None else np.asarray(rest)
    white = _white(image, deep_HWC[..., :3], tell)
    shown_HWC = _levels(white)[deep_HWC]
    if image.mode == "RGBA" and deep_HWC[..., 3].max() > white:  # alpha has its own range
        shown_HWC[..., 3] = high_HWC[..., 3]
    return _keyed(image, shown_HWC, deep_HWC)


def _keyed(image: Image.Image, shown: np.ndarray, deep_HWC: np.ndarray) -> Image.Image:
    found = Image.fromarray(shown)
    key = image.info.get("transparency")
    if key is not None:
        clear_HW = (deep_HWC == np.asarray(key)).all(axis=-1)
        found.putalpha(Image.fromarray(np.where(clear_HW, 0, 255).astype(np.uint8)))
    found.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return found


def _white(image: Image.Image, deep: np.ndarray, tell: Told) -> int:
    """The value of white in a picture of 16-bit samples."""
    bits, most = _tag(image, _BITS), _tag(image, _MAX_SAMPLE)
    top = int(deep.max())
    if bits and bits < 16:
        return int(2**bits - 1)
    if image.format in _SCALED or not top:
        return 65535
    white = int(most) if most and top <= most < 65535 else next(white for white in _USUAL if top <= white)
    # Where the bits below are nowhere used, samples were brought up to 16 bits as they should be: the picture is dark.
    if not most and white < 65535 and not (deep & (65535 // (white + 1))).any():
        return 65535
    if white < 65535:
        tell(f"16 bits a sample with none above {white}, which is taken for white")
    return white


def _levels(white: int) -> np.ndarray:
    """uint8 [65536]: the high byte, or for a lower white the level of each value."""
    values = np.arange(65536, dtype=np.uint32)
    return (values >> 8 if white == 65535 else np.minimum((values * 255 + white // 2) // white, 255)).astype(np.uint8)


def _wide_gray(image: Image.Image, packed: str, tell: Told) -> Image.Image:
    """32-bit integers and floats, from what is black to what is white."""
    gray_HW = np.asarray(image)
    if packed.startswith("I;32") and _tag(image, _FORMAT) in (None, 1):
        gray_HW = gray_HW.view(np.uint32)
    if image.format in _SCALED:
        return _keyed(image, _levels(65535)[gray_HW], gray_HW[..., None])
    gray_HW = gray_HW.astype(np.float32)  # a copy
    none_HW = np.isnan(gray_HW)
    if (no_data := _tag(image, _NO_DATA)) is not None:
        none_HW |= gray_HW == np.float32(no_data)
    if count := int(none_HW.sum()):
        tell(f"{count} values that are no numbers, shown as black")
    known = gray_HW[np.isfinite(gray_HW) & ~none_HW]
    least, most = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    black, white = _ends(least, most, image.mode == "F")
    if (black, white) != (0, 1 if image.mode == "F" else 255):
        tell(f"values from {least:g} to {most:g}, shown from {black:g} as black to {white:g} as white")
    gray_HW -= black
    gray_HW *= 255 / max(white - black, 1e-30)
    gray_HW[none_HW] = 0
    if _tag(image, _PHOTOMETRIC) == 0:
        np.subtract(255, gray_HW, out=gray_HW)
    return _keyed(image, np.clip(gray_HW + 0.5, 0, 255).astype(np.uint8), np.asarray(image)[..., None])


def _ends(least: float, most: float, floats: bool) -> tuple[float, float]:
    """What is black and what is white among values in this range."""
    if floats and most <= _SLACK:
        white = 1.0
    elif floats and most <= _DARK:
        white = most
    else:
        white = next((float(white) for white in _USUAL if most <= white * (_SLACK if floats else 1)), most)
    return (least, most) if least < -(_SLACK - 1) * white else (0.0, white)


def _tag(image: Image.Image, number: int) -> Any:
    """A TIFF file's tag, as one number; `None` where there is none."""
    found = getattr(image, "tag_v2", {}).get(number)
    if isinstance(found, tuple):
        found = max(found) if found else None
    try:
        return None if found is None else float(str(found).strip("\0 "))
    except ValueError:
        return None

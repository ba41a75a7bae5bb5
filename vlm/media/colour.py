"""The colours a picture means: what its ICC profile says of its numbers, brought to sRGB by littleCMS."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 16 * 2**20
"""The largest profiles of printing presses have 9 MB."""
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}
"""The mode of pictures that a profile for a space of colours is about (ICC.1, 7.2.8)."""
_LAB = b""
"""Stands for the profile of CIELAB, which pictures of that mode need not bring along."""


def to_srgb(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """The picture in sRGB; alpha stays. It comes back as it is where it has no profile or that of sRGB.

    A profile that cannot be used is told in `notes`, and the numbers are taken for sRGB.
    """
    profile = image.info.get("icc_profile") or (_LAB if image.mode == "LAB" else None)
    if profile is None:
        return image
    try:
        transform = _transform(profile)
        return image if transform is None else _transformed(image, transform, _mode(profile))
    except (OSError, ValueError, ImportError, ImageCms.PyCMSError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        notes.append(f"{name}: its colour profile cannot be used, sRGB is assumed ({reason})")
        plain = image.copy()
        plain.info.pop("icc_profile", None)
        return plain


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform, mode: str) -> Image.Image:
    """Raises `ValueError` where the profile is about another mode than the picture's."""
    plain = {"1": "L", "P": "RGB", "YCbCr": "RGB"}.get(image.mode, image.mode)
    if image.mode == "PA" or (plain in ("L", "RGB") and "transparency" in image.info):
        plain = "LA" if plain == "L" else "RGBA"
    colours = image if plain == image.mode else image.convert(plain)
    alpha = colours.getchannel("A") if colours.mode in ("RGBA", "LA") else None
    if alpha is not None:
        colours = colours.convert(colours.mode[:-1])
    if colours.mode != mode:
        raise ValueError(f"it is about {mode} pictures, not {colours.mode}")
    found = transform.apply(colours)
    found.info = {key: value for key, value in image.info.items() if key not in ("icc_profile", "transparency")}
    if alpha is not None:
        found.putalpha(alpha)
    return found


def changes(profile: bytes | None) -> bool:
    """Whether a picture with this profile has to be converted; one that is broken is left to `to_srgb` to tell of."""
    try:
        return bool(profile) and _transform(profile or b"") is not None
    except (OSError, ValueError, ImportError, ImageCms.PyCMSError):
        return True


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """To sRGB, with the intent that littleCMS takes by default; `None` where no colour moves by more than one level."""
    if len(profile) > MAX_PROFILE_BYTES:
        raise ValueError(f"expected at most {MAX_PROFILE_BYTES} bytes, got {len(profile)}")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    mode = _mode(profile)
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode not in ("RGB", "L"):
        return transform
    steps = np.linspace(0, 255, 256 if mode == "L" else 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), axis=-1).reshape(1, -1, len(mode))
    shown = np.asarray(transform.apply(Image.fromarray(grid.squeeze(-1) if mode == "L" else grid)))
    return None if np.abs(shown.astype(int) - grid).max() <= 1 else transform


@lru_cache(maxsize=8)
def _mode(profile: bytes) -> str:
    if not profile:
        return "LAB"
    space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space
    if space not in _MODES:
        raise ValueError(f"it is about colours of {space.strip() or 'no space'}")
    return _MODES[space]

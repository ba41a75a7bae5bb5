"""From a JPEG's bytes to a tower's input, faster than through a Pillow image.

B images, H rows, W columns.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from vlm.errors import BadInput
from vlm.media.colour import changes
from vlm.media.images import MAX_PIXELS, check_file, load_image
from vlm.vision.tower import TowerConfig
from vlm.vision.transforms import crop, resized_size, to_pixels

Way = Literal["plain", "fast", "scaled"]
Source: TypeAlias = str | Path | bytes
ENOUGH = 2
"""A scaled decode keeps this many times the pixels a side that the resize needs."""


def read_pixels(sources: Sequence[Source], cfg: TowerConfig, way: Way = "plain") -> Tensor:
    """Pictures in files or bytes as normalised float32 `[B, 3, size, size]` for the tower of `cfg`.

    - `plain`: `load_image`, then the checkpoint's own preprocessing.
    - `fast`: the same pixels decoded without Pillow, resized by torchvision's kernel on bytes. Up to two of 255 levels
      off `plain`: in one pixel of 300 of photographs, in one of 25 where they are enlarged.
    - `scaled`: as `fast`; a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, from its low frequencies alone, while
      that leaves twice what the resize needs. A few levels off `plain`.

    What is no plain JPEG takes the plain way. Raises `BadInput` as `load_image` does, and where `cfg` has a budget.
    """
    if cfg.budget is not None:
        raise BadInput(f"tower {cfg.name}: key budget: files are read for square pictures only")
    return torch.stack([_pixels(source, cfg, way) for source in sources])


def _pixels(source: Source, cfg: TowerConfig, way: Way) -> Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as TF

    pixels_3HW = None if way == "plain" else _decode(source, cfg, way == "scaled")
    if pixels_3HW is None:
        return to_pixels([load_image(source)], cfg.image_size, cfg.mean, cfg.std, cfg.interpolation, cfg.framing)[0]
    size = _target(pixels_3HW.shape[1], pixels_3HW.shape[2], cfg)
    pixels_3HW = TF.resize(pixels_3HW, list(size), InterpolationMode(cfg.interpolation), antialias=True)
    pixels_3HW = crop(pixels_3HW, cfg.image_size, cfg.framing).contiguous().float()
    mean_3, std_3 = torch.tensor(cfg.mean) * 255, torch.tensor(cfg.std) * 255
    return pixels_3HW.sub_(mean_3[:, None, None]).mul_(1 / std_3[:, None, None])


def _decode(source: Source, cfg: TowerConfig, scaled: bool) -> Tensor | None:
    """Upright RGB bytes `[3, H, W]`; `None` where it is no JPEG of one or three channels, not in sRGB, too large, or
    damaged."""
    import torchvision.io

    if not isinstance(source, bytes):
        check_file(Path(source), "an image file")
        source = Path(source).read_bytes()
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(source))
    except (UnidentifiedImageError, SyntaxError, OSError):
        return None
    if image.mode not in ("RGB", "L") or image.width * image.height > MAX_PIXELS:
        return None
    if changes(image.info.get("icc_profile")):  # colours other than sRGB's take the plain way
        return None
    if scaled:
        rows, columns = _target(image.height, image.width, cfg)
        full = image.size
        image.draft("RGB", (ENOUGH * columns, ENOUGH * rows))
        if image.size != full:
            return _quietly(lambda: _by_pillow(image))
    if not hasattr(torchvision.io, "decode_jpeg"):  # it is to move to another package; Pillow's pixels are the same
        return _quietly(lambda: _by_pillow(image))
    coded, mode = torch.frombuffer(bytearray(source), dtype=torch.uint8), torchvision.io.ImageReadMode.RGB
    return _quietly(lambda: torchvision.io.decode_jpeg(coded, mode, apply_exif_orientation=True))


def _by_pillow(image: Image.Image) -> Tensor:
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)  # channels stay last in memory: the resize is faster


def _target(height: int, width: int, cfg: TowerConfig) -> tuple[int, int]:
    return resized_size(height, width, cfg.framing.side or cfg.image_size, cfg.framing.resize)


def _quietly(decode: Callable[[], Tensor]) -> Tensor | None:
    """`None` for a damaged picture: the plain way says what is wrong with it."""
    try:
        return decode()
    except (RuntimeError, OSError, SyntaxError):
        return None

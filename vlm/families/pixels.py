"""Pictures and the frames of clips as transformers' processors make pixels of them: their keys and their arithmetic.

N tiles, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from vlm.families.published import PublishedConfig
from vlm.vision.tiling import Size

MODES = {
    0: InterpolationMode.NEAREST, 1: InterpolationMode.LANCZOS, 2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}  # fmt: skip


class PixelFields(PublishedConfig):
    """The keys that all of them have."""

    do_resize: Literal[True] = True
    do_rescale: Literal[True] = True
    do_normalize: Literal[True] = True
    resample: Literal[0, 1, 2, 3] = 3
    """Pillow's numbers: nearest, Lanczos, bilinear, bicubic."""
    rescale_factor: PositiveFloat = 1 / 255
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def resized(pixels_CHW: Tensor, size: Size, fields: PixelFields) -> Tensor:
    """By torchvision, as transformers does; its Lanczos kernel rounds otherwise than Pillow's."""
    return resize(pixels_CHW, [size[1], size[0]], interpolation=MODES[fields.resample], antialias=True)


def cut(pixels_CHW: Tensor, tile: int) -> Tensor:
    """A picture of whole tiles as `[N, C, tile, tile]`, row by row."""
    return pixels_CHW.unflatten(2, (-1, tile)).unflatten(1, (-1, tile)).permute(1, 3, 0, 2, 4).flatten(0, 1)


def normalised(pixels_NCHW: Tensor, fields: PixelFields) -> Tensor:
    """float32; scale and offset are applied at once, as transformers does."""
    mean, std = (
        torch.tensor(values) * (1.0 / fields.rescale_factor) for values in (fields.image_mean, fields.image_std)
    )
    return pixels_NCHW.float().sub_(mean[:, None, None]).div_(std[:, None, None])

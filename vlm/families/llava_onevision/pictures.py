"""Pictures and frames as LLaVA-OneVision's tower sees them.

N tiles, C channels, H rows, W columns.
"""

from __future__ import annotations

from math import ceil

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pad, pil_to_tensor

from vlm.families.llava_onevision.config import PictureFields
from vlm.families.llava_onevision.layout import Layout
from vlm.families.pixels import cut, resized
from vlm.vision.tiling import Size


def split(image: Image.Image, fields: PictureFields, layout: Layout) -> Tensor:
    """The whole, squashed into a tile, and the tiles row by row, `[N, C, H, W]` uint8."""
    pixels_CHW = pil_to_tensor(image)
    wide, high = (tiles * layout.tile for tiles in layout.tiles(image.size))
    large_CHW = resized(pixels_CHW, within(image.size, (wide, high)), fields)
    tiles_NCHW = cut(_filled_up(large_CHW, (wide, high), (0, 0, 0)), layout.tile)
    return torch.cat([resized(pixels_CHW, (layout.tile, layout.tile), fields)[None], tiles_NCHW])


def whole(image: Image.Image, fields: PictureFields, layout: Layout) -> Tensor:
    """One tile with the aspect ratio kept, `[1, C, H, W]` uint8."""
    red, green, blue = fields.image_mean
    color = int(red * 255), int(green * 255), int(blue * 255)
    square_CHW = _filled_up(pil_to_tensor(image), (max(image.size), max(image.size)), color)
    return resized(square_CHW, (layout.tile, layout.tile), fields)[None]


def frame(image: Image.Image, fields: PictureFields, layout: Layout) -> Tensor:
    """A clip's frame squashed into a tile, `[1, C, H, W]` uint8."""
    return resized(pil_to_tensor(image), (layout.tile, layout.tile), fields)[None]


def within(size: Size, space: Size) -> Size:
    """The largest (width, height) of this aspect ratio that the space holds."""
    (width, height), (wide, high) = size, space
    across, down = wide / width, high / height
    if across < down:
        return wide, min(ceil(height * across), high)
    return min(ceil(width * down), wide), high


def _filled_up(pixels_CHW: Tensor, size: Size, color: tuple[int, int, int]) -> Tensor:
    """The picture in the middle of a colour."""
    across, down = size[0] - pixels_CHW.shape[2], size[1] - pixels_CHW.shape[1]
    left, top = across // 2, down // 2
    return pad(pixels_CHW, [left, top, across - left, down - top], fill=[*map(float, color)])

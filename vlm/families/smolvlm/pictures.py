"""Pictures and frames as SmolVLM's tower sees them: enlarged to whole tiles, cut, and once more as a whole.

N tiles, C channels, H rows, W columns.
"""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from vlm.conversation.inputs import Grid
from vlm.families.pixels import cut, resized
from vlm.families.smolvlm.config import PictureFields
from vlm.vision.tiling import Size

LARGEST = 4096
"""No side is made longer than this."""


def split(image: Image.Image, fields: PictureFields) -> tuple[Tensor, Grid]:
    """A picture's tiles row by row and then the whole, `[N, C, H, W]` uint8; its grid, (0, 0) for the whole alone."""
    tile = fields.max_image_size.longest_edge
    pixels_CHW = resized(pil_to_tensor(image), longest(image.size, fields.size.longest_edge), fields)
    if not fields.do_image_splitting:
        return resized(pixels_CHW, (tile, tile), fields)[None], (0, 0)
    wide, high = whole_tiles((pixels_CHW.shape[2], pixels_CHW.shape[1]), tile)
    pixels_CHW = resized(pixels_CHW, (wide * tile, high * tile), fields)
    if (wide, high) == (1, 1):
        return pixels_CHW[None], (0, 0)
    return torch.cat([cut(pixels_CHW, tile), resized(pixels_CHW, (tile, tile), fields)[None]]), (wide, high)


def edges(fields: PictureFields) -> list[int]:
    """What the longer side may be: whole tiles, up to what the authors make it."""
    tile, most = fields.max_image_size.longest_edge, fields.size.longest_edge
    return [*range(tile, most, tile), most] if fields.do_image_splitting else [most]


def seen(size: Size, edge: int, fields: PictureFields) -> tuple[Size, Grid]:
    """The (width, height) a picture of this size is shrunk to with this longer side, and the grid of its tiles."""
    small = longest(size, edge)
    grid = whole_tiles(small, fields.max_image_size.longest_edge) if fields.do_image_splitting else (0, 0)
    return small, (0, 0) if grid == (1, 1) else grid


def frame(image: Image.Image, fields: PictureFields) -> Tensor:
    """A clip's frame as one tile, `[1, C, H, W]` uint8."""
    side = min(fields.size.longest_edge, LARGEST)
    pixels_CHW = resized(pil_to_tensor(image), longest(image.size, side), fields)
    tile = fields.max_image_size.longest_edge
    return resized(pixels_CHW, (tile, tile), fields)[None]


def longest(size: Size, side: int) -> Size:
    """(width, height) with the longer one `side` and the aspect ratio kept; the shorter is made even."""
    width, height = size
    ratio = width / height
    if width >= height:
        short = int(side / ratio)
        width, height = side, max(1, short + short % 2)
    else:
        short = int(side * ratio)
        width, height = max(1, short + short % 2), side
    ratio = width / height
    if width >= height and width > LARGEST:
        width, height = LARGEST, max(1, int(LARGEST / ratio))
    elif height > LARGEST:
        width, height = max(1, int(LARGEST * ratio)), LARGEST
    return width, height


def whole_tiles(size: Size, tile: int) -> Grid:
    """Tiles wide and high that cover a picture whose longer side is rounded up to whole ones first."""
    width, height = size
    ratio = width / height
    if width >= height:
        wide = math.ceil(width / tile)
        return wide, math.ceil(int(wide * tile / ratio) / tile)
    high = math.ceil(height / tile)
    return math.ceil(int(high * tile * ratio) / tile), high

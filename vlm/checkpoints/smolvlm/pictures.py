"""Pictures and frames as SmolVLM's tower sees them: enlarged to whole tiles, cut, and once more as a whole.

N tiles, C channels, H rows, W columns.
"""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from vlm.checkpoints.smolvlm.config import PictureFields
from vlm.tiled_model import Grid
from vlm.vision.tiling import Size

LARGEST = 4096
"""No side is made longer than this."""
MODES = {
    0: InterpolationMode.NEAREST, 1: InterpolationMode.LANCZOS, 2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}  # fmt: skip


def split(image: Image.Image, fields: PictureFields) -> tuple[Tensor, Grid]:
    """A picture's tiles row by row and then the whole, `[N, C, H, W]` uint8; its grid, (0, 0) for the whole alone."""
    tile = fields.max_image_size.longest_edge
    pixels_CHW = _resized(pil_to_tensor(image), longest(image.size, fields.size.longest_edge), fields)
    if not fields.do_image_splitting:
        return _resized(pixels_CHW, (tile, tile), fields)[None], (0, 0)
    wide, high = whole_tiles((pixels_CHW.shape[2], pixels_CHW.shape[1]), tile)
    pixels_CHW = _resized(pixels_CHW, (wide * tile, high * tile), fields)
    if (wide, high) == (1, 1):
        return pixels_CHW[None], (0, 0)
    tiles_NCHW = pixels_CHW.unflatten(2, (wide, tile)).unflatten(1, (high, tile)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    return torch.cat([tiles_NCHW, _resized(pixels_CHW, (tile, tile), fields)[None]]), (wide, high)


def frame(image: Image.Image, fields: PictureFields) -> Tensor:
    """A clip's frame as one tile, `[1, C, H, W]` uint8."""
    side = min(fields.size.longest_edge, LARGEST)
    pixels_CHW = _resized(pil_to_tensor(image), longest(image.size, side), fields)
    tile = fields.max_image_size.longest_edge
    return _resized(pixels_CHW, (tile, tile), fields)[None]


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


def normalised(pixels_NCHW: Tensor, fields: PictureFields) -> Tensor:
    """float32; scale and offset are applied at once, as transformers does."""
    mean, std = (
        torch.tensor(values) * (1.0 / fields.rescale_factor) for values in (fields.image_mean, fields.image_std)
    )
    return pixels_NCHW.float().sub_(mean[:, None, None]).div_(std[:, None, None])


def _resized(pixels_CHW: Tensor, size: Size, fields: PictureFields) -> Tensor:
    """By torchvision, as transformers does; its Lanczos kernel rounds otherwise than Pillow's."""
    return resize(pixels_CHW, [size[1], size[0]], interpolation=MODES[fields.resample], antialias=True)

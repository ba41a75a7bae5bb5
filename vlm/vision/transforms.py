"""From pictures to a tower's input.

B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image
from pydantic import PositiveInt
from torch import Tensor

from vlm.config import Config
from vlm.errors import BadInput
from vlm.media.images import MAX_PIXELS

Interpolation = Literal["bicubic", "bilinear", "lanczos", "nearest"]
Kernel = Literal["pillow", "torchvision", "float"]
MODES = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


class Framing(Config):
    """How a picture of any shape becomes a square. By default it is squashed into one.

    `resize` keeps the aspect ratio where it says which side becomes `side` (the tower's image size where there is
    none); what is over is cropped off the middle, what is missing is filled with `fill`.

    `kernel` is whose arithmetic resizes. Pillow's and torchvision's on bytes (`torchvision`) differ by up to two of 255
    levels in some pixels; torchvision's is three to four times faster. `float` resizes before anything is rounded.
    """

    resize: Literal["squash", "shortest", "longest"] = "squash"
    side: PositiveInt | None = None
    fill: tuple[int, int, int] = (0, 0, 0)
    offset: Literal["rounded", "floored"] = "rounded"
    """Of a crop whose two margins cannot be equal."""
    kernel: Kernel = "pillow"


SQUASH = Framing()


def to_pixels(
    images: Sequence[Image.Image],
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    framing: Framing = SQUASH,
) -> Tensor:
    """RGB pictures as normalised float32 `[B, 3, size, size]`.

    Raises `BadInput` for a picture so long and thin that it would not fit into memory once its short side is resized.
    """
    rows = []
    for image in images:
        target = resized_size(image.height, image.width, framing.side or size, framing.resize)
        pixels_CHW = resize(image, target, interpolation, framing.kernel)
        rows.append(normalise(crop(pixels_CHW, size, framing), mean, std))
    return torch.stack(rows)


def resized_size(height: int, width: int, side: int, how: str) -> tuple[int, int]:
    """Rows and columns after the resize, rounded as torchvision (shortest) and timm and open_clip (longest) do."""
    if how == "squash":
        return side, side
    if how == "longest":
        ratio = max(height, width) / side
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    long = int(side * max(height, width) / min(height, width))
    if side * long > MAX_PIXELS:
        raise BadInput(
            f"picture of {width}x{height}: expected at most {MAX_PIXELS} pixels once its short side is {side}, "
            f"got {side * long}"
        )
    return (side, long) if height <= width else (long, side)


def resize(image: Image.Image, size: tuple[int, int], interpolation: str, kernel: str) -> Tensor:
    """`[3, H, W]`: bytes, or floats in 0..1 from the kernel `float`."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as TF

    rgb = image.convert("RGB")
    if kernel == "pillow":
        return TF.pil_to_tensor(rgb.resize(size[::-1], MODES[interpolation]))
    pixels_CHW = TF.pil_to_tensor(rgb)
    if kernel == "float":
        pixels_CHW = TF.to_dtype(pixels_CHW, torch.float32, scale=True)
    return TF.resize(pixels_CHW, list(size), InterpolationMode(interpolation), antialias=True)


def crop(pixels_CHW: Tensor, size: int, framing: Framing) -> Tensor:
    """The middle `[3, size, size]`, with a border of `fill` where there are fewer pixels."""
    height, width = pixels_CHW.shape[-2:]
    if (height, width) == (size, size):
        return pixels_CHW
    tall, wide = max(0, size - height), max(0, size - width)
    if tall or wide:
        framed_CHW = pixels_CHW.new_tensor(framing.fill)[:, None, None].repeat(1, height + tall, width + wide)
        framed_CHW[:, tall // 2 : tall // 2 + height, wide // 2 : wide // 2 + width] = pixels_CHW
        pixels_CHW = framed_CHW
    down, across = pixels_CHW.shape[-2] - size, pixels_CHW.shape[-1] - size
    top, left = (round(down / 2), round(across / 2)) if framing.offset == "rounded" else (down // 2, across // 2)
    return pixels_CHW[:, top : top + size, left : left + size]


def normalise(pixels_CHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes, or floats in 0..1, as float32 with the mean taken off and divided by the deviation."""
    from torchvision.transforms.v2 import functional as TF

    return TF.normalize(TF.to_dtype(pixels_CHW, torch.float32, scale=True), list(mean), list(std))

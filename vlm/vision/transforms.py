"""From pictures to a tower's input.

B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


def to_pixels(
    images: Sequence[Image.Image], size: int, mean: Sequence[float], std: Sequence[float], interpolation: str
) -> Tensor:
    """RGB pictures as normalised float32 `[B, 3, size, size]`; the whole picture is kept, its aspect ratio is not."""
    rows = []
    for image in images:
        pixels_CHW = TF.pil_to_tensor(image.convert("RGB"))
        pixels_CHW = TF.resize(pixels_CHW, [size, size], interpolation=MODES[interpolation], antialias=True)
        rows.append(TF.normalize(TF.to_dtype(pixels_CHW, torch.float32, scale=True), list(mean), list(std)))
    return torch.stack(rows)

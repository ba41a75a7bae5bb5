"""From pictures to a tower's input.

B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

MODES = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def to_pixels(
    images: Sequence[Image.Image], size: int, mean: Sequence[float], std: Sequence[float], interpolation: str
) -> Tensor:
    """RGB pictures as normalised float32 `[B, 3, size, size]`; the whole picture is kept, its aspect ratio is not.

    Resized by Pillow, as the published towers' own evaluation does: torchvision's kernel rounds some pixels otherwise.
    """
    rows = []
    for image in images:
        pixels_CHW = TF.pil_to_tensor(image.convert("RGB").resize((size, size), MODES[interpolation]))
        rows.append(TF.normalize(TF.to_dtype(pixels_CHW, torch.float32, scale=True), list(mean), list(std)))
    return torch.stack(rows)

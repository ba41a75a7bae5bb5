"""Native aspect ratios: a picture is resized to whole patches, as many as a budget allows, and keeps its shape.

NaViT (arXiv:2307.06304) as SigLIP 2's NaFlex does it (arXiv:2502.14786, section 2.4.2): the pictures of a batch are
padded to the longest and masked.

B images, N patches, P numbers of a patch (side x side x 3), H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlm.vision.transforms import normalise, resize

PatchShape = tuple[int, int]
"""(rows, columns) of patches, as a tensor's shape; where tiles are counted, a grid is (wide, high)."""


@dataclass(frozen=True)
class Patches:
    """Pictures as rows of patches, in reading order, each a square of pixels with its channels last."""

    patches_BNP: Tensor
    grids: tuple[PatchShape, ...]
    """Rows and columns of patches of each picture; what lies behind them in `patches_BNP` is padding."""

    @property
    def valid_BN(self) -> Tensor:
        """True where a patch is a picture's."""
        lengths_B = torch.tensor([rows * columns for rows, columns in self.grids])
        return torch.arange(self.patches_BNP.shape[1]) < lengths_B[:, None]

    @property
    def coordinates_BN2(self) -> Tensor:
        """Row and column of each patch, int64; zero on padding."""
        places = [torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) for rows, columns in self.grids]
        short = self.patches_BNP.shape[1] - max(len(place) for place in places)
        return torch.nn.functional.pad(
            pad_sequence([p.view(-1, 2) for p in places], batch_first=True), (0, 0, 0, short)
        )

    def to(self, *to: torch.device | torch.dtype) -> Patches:
        """On a device, in a type, or both."""
        patches_BNP = self.patches_BNP
        for what in to:
            patches_BNP = patches_BNP.to(what)
        return replace(self, patches_BNP=patches_BNP)

    def bfloat16(self) -> Patches:
        return self.to(torch.bfloat16)


def patch_shape(height: int, width: int, patch: int, budget: int) -> PatchShape:
    """Rows and columns of patches of a picture of `height` x `width`, at most `budget` of them.

    The scale is the largest at which both sides, rounded up to whole patches, stay within the budget. It is searched
    for by halving and no further than transformers and timm do, so that the shapes are theirs.
    """
    low, high = 1e-6, 100.0

    def shape(scale: float) -> PatchShape:
        return max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch))

    while high - low >= 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(shape(middle)) <= budget else (low, middle)
    return shape(low)


def to_patches(
    images: Sequence[Image.Image],
    patch: int,
    budget: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    kernel: str,
) -> Patches:
    """RGB pictures, each resized to its own shape, normalised and cut into patches."""
    rows, shapes = [], []
    for image in images:
        shape = patch_shape(image.height, image.width, patch, budget)
        pixels_CHW = resize(image, (shape[0] * patch, shape[1] * patch), interpolation, kernel)
        rows.append(cut(normalise(pixels_CHW, mean, std), patch))
        shapes.append(shape)
    return Patches(pad_sequence(rows, batch_first=True), tuple(shapes))


def cut(pixels_CHW: Tensor, patch: int) -> Tensor:
    """`[3, H, W]` into `[N, P]`."""
    squares = pixels_CHW.unflatten(2, (-1, patch)).unflatten(1, (-1, patch))
    return squares.permute(1, 3, 2, 4, 0).flatten(2).flatten(0, 1)

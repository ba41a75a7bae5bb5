"""Vectors whose first numbers are a shorter vector (Matryoshka representations, arXiv:2205.13147)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from vlm.errors import BadInput


def truncated(vectors_ND: Tensor, width: int) -> Tensor:
    """The first `width` numbers of each vector, of unit length again. Raises `BadInput` for a width there is not."""
    if not 1 <= width <= vectors_ND.shape[-1]:
        raise BadInput(f"width {width}: expected 1 to {vectors_ND.shape[-1]}, the width of the vectors")
    return F.normalize(vectors_ND[..., :width], dim=-1)


def matryoshka_loss(
    loss: Callable[[Tensor, Tensor], Tensor], image_ID: Tensor, text_TD: Tensor, widths: Sequence[int]
) -> Tensor:
    """The mean of a loss of pictures and texts over several widths (equation 1, with equal weights)."""
    values = [loss(truncated(image_ID, width), truncated(text_TD, width)) for width in widths]
    return sum(values[1:], values[0]) / len(values)

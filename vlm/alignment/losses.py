"""Contrastive objectives over a batch of pictures and texts; a picture may have several texts.

I pictures, T texts, D shared width. Rows are unit vectors; `image_of_text_T` says which picture each text describes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def clip_loss(image_ID: Tensor, text_TD: Tensor, image_of_text_T: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways (CLIP, arXiv:2103.00020, figure 3).

    A picture's target is uniform over its texts (as in SupCon, arXiv:2004.11362, equation 2); with one text a
    picture this is CLIP's loss.
    """
    logits_TI = scale * text_TD @ image_ID.T
    to_image = F.cross_entropy(logits_TI, image_of_text_T)
    positives_IT = _positives(image_of_text_T, len(image_ID)).T
    targets_IT = positives_IT / positives_IT.sum(dim=1, keepdim=True)
    to_text = -(targets_IT * logits_TI.T.log_softmax(dim=1)).sum(dim=1).mean()
    return (to_image + to_text) / 2


def siglip_loss(image_ID: Tensor, text_TD: Tensor, image_of_text_T: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Sigmoid loss of every pair (SigLIP, arXiv:2303.15343, algorithm 1), summed over pairs, mean over texts."""
    logits_TI = scale * text_TD @ image_ID.T + bias
    signs_TI = 2 * _positives(image_of_text_T, len(image_ID)) - 1
    return -F.logsigmoid(signs_TI * logits_TI).sum() / len(text_TD)


def _positives(image_of_text_T: Tensor, images: int) -> Tensor:
    """`[T, I]`, one where the text describes the picture."""
    return F.one_hot(image_of_text_T, images).to(torch.float32)

"""Contrastive objectives over a batch of pictures (or clips) and texts; a picture may have several texts.

Rows are unit vectors. `image_of_text_T` says which picture each text describes; -1 is a text that describes none of
them, as a caption with swapped words: it is in every picture's way and looks for none itself (NegCLIP,
arXiv:2210.01936, section 4).

I pictures, T texts, D shared width.
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
    to_image = F.cross_entropy(logits_TI, image_of_text_T, ignore_index=-1)
    positives_IT = positives(image_of_text_T, len(image_ID)).T.to(logits_TI.dtype)
    targets_IT = positives_IT / positives_IT.sum(dim=1, keepdim=True)
    to_text = -(targets_IT * logits_TI.T.log_softmax(dim=1)).sum(dim=1).mean()
    return (to_image + to_text) / 2


def siglip_loss(image_ID: Tensor, text_TD: Tensor, image_of_text_T: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Sigmoid loss of every pair (SigLIP, arXiv:2303.15343, algorithm 1), summed over pairs, mean over texts."""
    logits_TI = scale * text_TD @ image_ID.T + bias
    signs_TI = 2 * positives(image_of_text_T, len(image_ID)).to(logits_TI.dtype) - 1
    return -F.logsigmoid(signs_TI * logits_TI).sum() / len(text_TD)


def positives(image_of_text_T: Tensor, images: int) -> Tensor:
    """`[T, I]`, true where the text describes the picture."""
    return image_of_text_T[:, None] == torch.arange(images, device=image_of_text_T.device)


def distillation_loss(student_TI: Tensor, teacher_TI: Tensor) -> Tensor:
    """Cross-entropy of a student's affinities with its teacher's, both ways (TinyCLIP, arXiv:2309.12314, equation 3).

    Both are logits `[T, I]`: each one's own similarities times its own scale. No gradient reaches the teacher.
    """
    teacher_TI = teacher_TI.detach()
    to_image = F.cross_entropy(student_TI, teacher_TI.softmax(dim=1))
    to_text = F.cross_entropy(student_TI.T, teacher_TI.T.softmax(dim=1))
    return (to_image + to_text) / 2


def frame_order_loss(ordered_BD: Tensor, shuffled_BD: Tensor, text_BD: Tensor, scale: Tensor) -> Tensor:
    """Each text prefers its clip to the same frames in another order: InfoNCE between the two, text to clip."""
    better_B = scale * ((ordered_BD - shuffled_BD) * text_BD).sum(dim=-1)
    return -F.logsigmoid(better_B).mean()

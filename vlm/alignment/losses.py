"""Contrastive objectives over a batch of matching pairs.

B pairs, D shared width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def clip_loss(image_BD: Tensor, text_BD: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways (CLIP, arXiv:2103.00020, figure 3). Rows are unit vectors; row i of each side match."""
    logits_BB = scale * image_BD @ text_BD.T
    labels_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, labels_B) + F.cross_entropy(logits_BB.T, labels_B)) / 2


def siglip_loss(image_BD: Tensor, text_BD: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Sigmoid loss of every pair (SigLIP, arXiv:2303.15343, algorithm 1), summed over pairs, mean over rows."""
    logits_BB = scale * image_BD @ text_BD.T + bias
    signs_BB = 2 * torch.eye(len(logits_BB), device=logits_BB.device) - 1
    return -F.logsigmoid(signs_BB * logits_BB).sum() / len(logits_BB)

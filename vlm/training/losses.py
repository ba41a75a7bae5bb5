"""The loss of a language model's head in pieces, so that the logits of all tokens are never there at once.

R tokens that are learned, D width, V vocabulary, r tokens of a piece.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

PIECE = 256
"""Tokens whose logits are made together: 50 MB in float32 for 49,152 words."""


def head_loss(
    hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_R: Tensor, piece: int = PIECE
) -> Tensor:
    """The sum over tokens of the cross-entropy of `hidden_RD @ weight_VD.T + bias_V`, in float32: what the plain
    expression gives, with `[piece, V]` numbers in memory and not `[R, V]`. Gradients are made on the way, a piece at a
    time, for what needs them."""
    return _HeadLoss.apply(hidden_RD, weight_VD, bias_V, labels_R, piece)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_R: Tensor, piece: int
    ) -> Tensor:
        wants = ctx.needs_input_grad
        to_hidden = torch.empty_like(hidden_RD) if wants[0] else None
        to_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if wants[1] else None
        to_bias = torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and wants[2] else None
        loss = hidden_RD.new_zeros((), dtype=torch.float32)
        for begin in range(0, len(hidden_RD), piece):
            rows = slice(begin, begin + piece)
            some_rD, labels_r = hidden_RD[rows], labels_R[rows]
            chances_rV = F.linear(some_rD, weight_VD, bias_V).float().log_softmax(-1)
            loss -= chances_rV.gather(1, labels_r[:, None]).sum()
            if not any(wants[:3]):
                continue
            # Of a softmax the gradient is the chances, less one at the label.
            slope_rV = chances_rV.exp_()
            slope_rV.scatter_add_(1, labels_r[:, None], slope_rV.new_full((len(labels_r), 1), -1.0))
            if to_bias is not None:
                to_bias += slope_rV.sum(0)
            slope_rV = slope_rV.to(weight_VD.dtype)
            if to_hidden is not None:
                to_hidden[rows] = slope_rV @ weight_VD
            if to_weight is not None:
                to_weight += slope_rV.mT @ some_rD
        ctx.save_for_backward(
            to_hidden,
            None if to_weight is None else to_weight.to(weight_VD.dtype),
            None if to_bias is None or bias_V is None else to_bias.to(bias_V.dtype),
        )
        return loss

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        made = [None if own is None else own * slope.to(own.dtype) for own in ctx.saved_tensors]
        return *made, None, None

"""`losses.clip_loss` and `losses.siglip_loss` of large batches: the matrix of logits is made a few rows at a time.

The gradient is computed with the loss, from the same rows, and kept: it is as large as the vectors, not as the matrix.
So a value can be differentiated once.

I pictures, T texts, C texts of a chunk, D shared width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = 512
"""Texts whose logits are held at a time."""
_HEADROOM, _FLOOR = 40.0, -80.0
"""The largest exponent and the least: sums of many such exponentials, and their inverses, are float32 numbers."""


def chunked_clip_loss(
    image_ID: Tensor, text_TD: Tensor, image_of_text_T: Tensor, scale: Tensor, chunk: int = CHUNK
) -> Tensor:
    """`losses.clip_loss` in memory of O(chunk * I) where that needs O(T * I)."""
    return _apply(_Clip, image_ID, text_TD, image_of_text_T, scale, chunk)


def chunked_siglip_loss(
    image_ID: Tensor, text_TD: Tensor, image_of_text_T: Tensor, scale: Tensor, bias: Tensor, chunk: int = CHUNK
) -> Tensor:
    """`losses.siglip_loss` in memory of O(chunk * I) where that needs O(T * I)."""
    return _apply(_SigLIP, image_ID, text_TD, image_of_text_T, scale, bias, chunk)


def _apply(function: type[torch.autograd.Function], *inputs: object) -> Tensor:
    loss: Tensor = function.apply(*inputs)
    return loss


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image_ID: Tensor, text_TD: Tensor, owner_T: Tensor, scale: Tensor, chunk: int) -> Tensor:
        chunks = [slice(start, start + chunk) for start in range(0, len(text_TD), chunk)]
        image_DI = image_ID.T.contiguous() * scale
        own = owner_T >= 0
        seekers = own.sum().to(scale.dtype)
        texts_I = torch.bincount(owner_T[own], minlength=len(image_ID)).to(scale.dtype)
        own_T = scale * (text_TD * image_ID[owner_T.clamp(min=0)]).sum(dim=-1) * own
        # The sums of each text's row and each picture's column, and from their logarithms the loss. The logits of unit
        # vectors lie between -scale and scale, so with this shift one exponential serves rows and columns. (A pair
        # below the floor is taken for one at the floor: that matters only where a scale over 60 meets a text or picture
        # that is far from everything, its own included.)
        shift = scale - _HEADROOM
        rows, columns_I = [], torch.zeros_like(image_DI[0])
        for part in chunks:
            exp_CI = (text_TD[part] @ image_DI).sub_(shift).clamp_(min=_FLOOR).exp_()
            rows.append(exp_CI.sum(dim=1))
            columns_I += exp_CI.sum(dim=0)
        row_T = torch.cat(rows)
        to_image = (row_T.log() + shift - own_T)[own].sum() / seekers
        share_T = own / texts_I[owner_T.clamp(min=0)].clamp(min=1)
        to_text = (columns_I.log().sum() - (own_T * share_T).sum()) / len(image_ID) + shift
        if any(ctx.needs_input_grad):
            image_grad, text_grad = torch.zeros_like(image_ID), torch.empty_like(text_TD)
            for part in chunks:
                # softmax - target, of rows and of columns
                slope_CI = (text_TD[part] @ image_DI).sub_(shift).clamp_(min=_FLOOR).exp_()
                place = (torch.arange(len(slope_CI), device=owner_T.device)[own[part]], owner_T[part][own[part]])
                slope_CI *= (own[part] / (2 * seekers * row_T[part]))[:, None] + 1 / (2 * len(image_ID) * columns_I)
                target_T = 1 / (2 * seekers) + share_T[part][own[part]] / (2 * len(image_ID))
                slope_CI[place] -= target_T
                text_grad[part] = slope_CI @ image_DI.T
                image_grad.addmm_(slope_CI.T, text_TD[part])
            scale_grad = (text_grad * text_TD).sum() / scale  # the slopes times the similarities, summed
            ctx.save_for_backward(image_grad.mul_(scale), text_grad, scale_grad)
        return (to_image + to_text) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image_grad, text_grad, scale_grad = ctx.saved_tensors
        return grad * image_grad, grad * text_grad, None, grad * scale_grad, None


class _SigLIP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image_ID: Tensor, text_TD: Tensor, owner_T: Tensor, scale: Tensor, bias: Tensor, chunk: int
    ) -> Tensor:
        image_DI = image_ID.T.contiguous() * scale
        loss, bias_grad = torch.zeros_like(scale), torch.zeros_like(scale)
        image_grad, text_grad = torch.zeros_like(image_ID), torch.empty_like(text_TD)
        for start in range(0, len(text_TD), chunk):
            part = slice(start, start + chunk)
            own = owner_T[part] >= 0
            place = (torch.arange(len(own), device=own.device)[own], owner_T[part][own])
            product_CI = text_TD[part] @ image_DI
            signed_CI = (product_CI + bias).neg_()  # of a pair that does not belong together
            signed_CI[place] *= -1
            loss -= F.logsigmoid(signed_CI).sum()
            if any(ctx.needs_input_grad):
                slope_CI = signed_CI.neg_().sigmoid_()
                slope_CI[place] *= -1
                bias_grad += slope_CI.sum()
                text_grad[part] = slope_CI @ image_DI.T
                image_grad.addmm_(slope_CI.T, text_TD[part])
        scale_grad = (text_grad * text_TD).sum() / scale  # the slopes times the similarities, summed
        ctx.save_for_backward(image_grad.mul_(scale), text_grad, scale_grad, bias_grad)
        ctx.texts = len(text_TD)
        return loss / len(text_TD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image_grad, text_grad, scale_grad, bias_grad = (grad / ctx.texts * saved for saved in ctx.saved_tensors)
        return image_grad, text_grad, None, scale_grad, bias_grad, None

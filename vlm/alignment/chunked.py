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
        # Each text's log of its row's sum, each picture's of its column's, and from them the loss.
        rows, columns = [], torch.full_like(image_DI[0], -torch.inf)
        for part in chunks:
            logits_CI = text_TD[part] @ image_DI
            rows.append(logits_CI.logsumexp(dim=1))
            columns = torch.logaddexp(columns, logits_CI.logsumexp(dim=0))
        row_T = torch.cat(rows)
        to_image = (row_T - own_T)[own].sum() / seekers
        share_T = own / texts_I[owner_T.clamp(min=0)].clamp(min=1)
        to_text = (columns.sum() - (own_T * share_T).sum()) / len(image_ID)
        if any(ctx.needs_input_grad):
            image_grad, text_grad = torch.zeros_like(image_ID), torch.empty_like(text_TD)
            scale_grad = torch.zeros_like(scale)
            for part in chunks:
                logits_CI = text_TD[part] @ image_DI
                place = (torch.arange(len(logits_CI), device=owner_T.device)[own[part]], owner_T[part][own[part]])
                # softmax - target, of rows and of columns
                slope_CI = (logits_CI - row_T[part, None]).exp_().mul_((own[part] / (2 * seekers))[:, None])
                slope_CI += (logits_CI - columns).exp_().div_(2 * len(image_ID))
                target_T = 1 / (2 * seekers) + share_T[part][own[part]] / (2 * len(image_ID))
                slope_CI[place] -= target_T
                scale_grad += (slope_CI * logits_CI).sum() / scale
                text_grad[part] = slope_CI @ image_DI.T
                image_grad += scale * (slope_CI.T @ text_TD[part])
            ctx.save_for_backward(image_grad, text_grad, scale_grad)
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
        loss, scale_grad, bias_grad = (torch.zeros_like(scale) for _ in range(3))
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
                scale_grad += (slope_CI * product_CI).sum() / scale
                bias_grad += slope_CI.sum()
                text_grad[part] = slope_CI @ image_DI.T
                image_grad += scale * (slope_CI.T @ text_TD[part])
        ctx.save_for_backward(image_grad, text_grad, scale_grad, bias_grad)
        ctx.texts = len(text_TD)
        return loss / len(text_TD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image_grad, text_grad, scale_grad, bias_grad = (grad / ctx.texts * saved for saved in ctx.saved_tensors)
        return image_grad, text_grad, None, scale_grad, bias_grad, None

"""The routed experts of a mixture layer (DeepSeekMoE, arXiv:2401.06066), computed for the tokens that chose them.

T tokens (batch flattened), D width, E routed experts, k chosen experts, F expert width, R routed rows (T * k, less the
choices that are not used), P routed rows with padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vlm.language.config.mixture import MoEConfig
from vlm.language.mixture.dispatch import Dispatch
from vlm.language.steps import filled, tiles


class RoutedExperts(nn.Module):
    """SwiGLU experts stacked as `[E, out, in]`; dropless: every chosen pair of token and expert is computed."""

    def __init__(self, width: int, cfg: MoEConfig):
        super().__init__()
        self.gate_EFD = nn.Parameter(torch.empty(cfg.experts, cfg.width, width))
        self.up_EFD = nn.Parameter(torch.empty(cfg.experts, cfg.width, width))
        self.down_EDF = nn.Parameter(torch.empty(cfg.experts, width, cfg.width))
        for weight in (self.gate_EFD, self.up_EFD, self.down_EDF):
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)

    def forward(self, x_TD: Tensor, gates_Tk: Tensor, chosen_Tk: Tensor, sizes: tuple[int, ...] = ()) -> Tensor:
        """The sum of gate * expert(x) over each token's experts, `[T, D]`; a choice of -1 is none, and costs nothing.

        `plain` defines it; this is as fast as reading the weights of the experts that are called where rows are few,
        and keeps products large where they are many. With `sizes`, without gradients, products have these numbers of
        rows, and a token's sum is made in an order that no other token changes.
        """
        inputs: tuple[Tensor, ...] = x_TD, gates_Tk, self.gate_EFD, self.up_EFD, self.down_EDF
        device, (tokens, k) = x_TD.device.type, chosen_Tk.shape
        if torch.is_autocast_enabled(device):
            inputs = tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in inputs)
        few = device == "cpu" and tokens * k <= max(k, len(self.gate_EFD) // 2)
        if sizes and not torch.is_grad_enabled():
            return _in_sizes(sizes, chosen_Tk, *inputs)
        if few and not torch.is_grad_enabled():
            return _row_by_row(chosen_Tk, *inputs)
        out: Tensor = _Experts.apply(chosen_Tk, *inputs)
        return out

    def plain(self, x_TD: Tensor, gates_Tk: Tensor, chosen_Tk: Tensor) -> Tensor:
        """The same an expert at a time, as the paper has it (equation 9)."""
        out_TD = torch.zeros_like(x_TD)
        # unbind: indexing W[e] inside autograd writes a full-size gradient an expert.
        weights = zip(self.gate_EFD.unbind(0), self.up_EFD.unbind(0), self.down_EDF.unbind(0), strict=True)
        for expert, (gate, up, down) in enumerate(weights):
            tokens, choices = (chosen_Tk == expert).nonzero(as_tuple=True)
            x = x_TD[tokens]
            y = F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
            out_TD = out_TD.index_add(0, tokens, y * gates_Tk[tokens, choices][:, None])
        return out_TD


def _row_by_row(
    chosen_Tk: Tensor, x_TD: Tensor, gates_Tk: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor
) -> Tensor:
    """For decoding, where most experts have one row if any: a matrix times a vector reads memory as fast as it goes."""
    k = chosen_Tk.shape[1]
    # By expert, so that a second row finds the weights in the cache.
    rows = sorted((expert, row) for row, expert in enumerate(chosen_Tk.flatten().tolist()) if expert >= 0)
    h_RF = x_TD.new_zeros(chosen_Tk.numel(), gate_EFD.shape[1])
    up_RF, out_TD = torch.zeros_like(h_RF), torch.zeros_like(x_TD)
    x_D, h_F, up_F, out_D = x_TD.unbind(0), h_RF.unbind(0), up_RF.unbind(0), out_TD.unbind(0)
    with torch.autocast(x_TD.device.type, enabled=False):
        for expert, row in rows:
            torch.mv(gate_EFD[expert], x_D[row // k], out=h_F[row])
            torch.mv(up_EFD[expert], x_D[row // k], out=up_F[row])
        F.silu(h_RF, inplace=True).mul_(up_RF).mul_(gates_Tk.reshape(-1, 1))
        for expert, row in rows:
            out_D[row // k].addmv_(down_EDF[expert], h_F[row])
    return out_TD


def _in_sizes(
    sizes: tuple[int, ...], chosen_Tk: Tensor, x_TD: Tensor, gates_Tk: Tensor, gate_EFD: Tensor, up_EFD: Tensor,
    down_EDF: Tensor,
) -> Tensor:  # fmt: skip
    """An expert after the other, its rows filled up."""
    out_TD, k = torch.zeros_like(x_TD), chosen_Tk.shape[1]
    places: dict[int, list[int]] = {}
    for place, expert in enumerate(chosen_Tk.flatten().tolist()):
        places.setdefault(expert, []).append(place)
    places.pop(-1, None)
    with torch.autocast(x_TD.device.type, enabled=False):
        for expert in sorted(places):
            for part, size in tiles(places[expert], sizes):
                tokens_R = torch.tensor([place // k for place in part], device=x_TD.device)
                gates_R = gates_Tk.flatten()[torch.tensor(part, device=x_TD.device)]
                x_RD = filled(x_TD[tokens_R], size)
                h_RF = F.silu(F.linear(x_RD, gate_EFD[expert])) * F.linear(x_RD, up_EFD[expert])
                y_RD = F.linear(h_RF, down_EDF[expert])[: len(part)]
                out_TD.index_add_(0, tokens_R, y_RD * gates_R[:, None])
    return out_TD


class _Experts(torch.autograd.Function):
    """The gradient is written out: each weight's is filled in place by one product an expert, rows are gathered again
    rather than kept, and the experts' outputs are not needed."""

    @staticmethod
    def forward(
        ctx: Any, chosen_Tk: Tensor, x_TD: Tensor, gates_Tk: Tensor, gate_EFD: Tensor, up_EFD: Tensor, down_EDF: Tensor
    ) -> Tensor:
        dispatch = Dispatch(gates_Tk, chosen_Tk, len(gate_EFD))
        training = any(ctx.needs_input_grad)
        hidden = []
        out_TD = torch.zeros_like(x_TD)
        with torch.autocast(x_TD.device.type, enabled=False):
            for part in dispatch.parts:
                x_PD = x_TD.index_select(0, part.tokens_P)
                gate_PF, up_PF = part.product(x_PD, gate_EFD), part.product(x_PD, up_EFD)
                if training:
                    hidden.append((gate_PF, up_PF))
                y_PD = part.product(F.silu(gate_PF, inplace=not training).mul_(up_PF), down_EDF)
                out_TD.index_add_(0, part.tokens_P, y_PD.mul_(part.gates_P[:, None]))
        if training:
            ctx.save_for_backward(x_TD, gate_EFD, up_EFD, down_EDF)
            ctx.dispatch, ctx.hidden = dispatch, hidden
        return out_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, *weights = ctx.saved_tensors
        gate_EFD, up_EFD, down_EDF = weights
        grad_x_TD, grad_gates = torch.zeros_like(x_TD), list[Tensor]()
        grads = [torch.empty_like(weight) for weight in weights if any(ctx.needs_input_grad[3:])]
        for grad in grads:
            for expert in ctx.dispatch.idle:
                grad[expert] = 0
        for part, (gate_PF, up_PF) in zip(ctx.dispatch.parts, ctx.hidden, strict=True):
            y_grad_PD = grad_TD.index_select(0, part.tokens_P)  # not yet times the gate
            silu_PF = F.silu(gate_PF)
            h_PF = silu_PF * up_PF
            h_grad_PF = part.product(y_grad_PD, down_EDF.mT)
            grad_gates.append((h_grad_PF * h_PF).sum(1))
            h_grad_PF.mul_(part.gates_P[:, None])
            gate_grad_PF = torch.ops.aten.silu_backward(h_grad_PF * up_PF, gate_PF)
            up_grad_PF = h_grad_PF.mul_(silu_PF)
            if grads:
                x_PD = x_TD.index_select(0, part.tokens_P)
                part.weight_gradient(gate_grad_PF, x_PD, grads[0])
                part.weight_gradient(up_grad_PF, x_PD, grads[1])
                part.weight_gradient(y_grad_PD, h_PF.mul_(part.gates_P[:, None]), grads[2])
            x_grad_PD = part.product(gate_grad_PF, gate_EFD.mT).add_(part.product(up_grad_PF, up_EFD.mT))
            grad_x_TD.index_add_(0, part.tokens_P, x_grad_PD)
        grad_gates.append(x_TD.new_zeros(1))  # of choices that are not used
        return None, grad_x_TD, torch.cat(grad_gates)[ctx.dispatch.row_Tk], *(grads or (None, None, None))

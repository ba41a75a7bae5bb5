"""The routed experts of a mixture layer (DeepSeekMoE, arXiv:2401.06066), computed for the tokens that chose them.

T tokens (batch flattened), D width, E routed experts, k chosen experts, F expert width, R routed rows
(T * k, less the slots that are not used).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.config import MoEConfig


class RoutedExperts(nn.Module):
    """SwiGLU experts stacked as `[E, out, in]`; dropless: every chosen pair of token and expert is computed."""

    def __init__(self, width: int, cfg: MoEConfig):
        super().__init__()
        self.gate_EFD = nn.Parameter(torch.empty(cfg.experts, cfg.width, width))
        self.up_EFD = nn.Parameter(torch.empty(cfg.experts, cfg.width, width))
        self.down_EDF = nn.Parameter(torch.empty(cfg.experts, width, cfg.width))
        for weight in (self.gate_EFD, self.up_EFD, self.down_EDF):
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)

    def forward(self, x_TD: Tensor, gates_Tk: Tensor, chosen_Tk: Tensor) -> Tensor:
        """Rows are sorted by expert, so each expert is three dense products over its own rows.

        Slots of expert -1 are not used: they sort first, and are left out.
        """
        experts, top_k = self.gate_EFD.shape[0], chosen_Tk.shape[1]
        unused, *counts = torch.bincount(chosen_Tk.flatten() + 1, minlength=experts + 1).tolist()
        order_R = chosen_Tk.flatten().argsort(stable=True)[unused:]
        rows_R = order_R // top_k
        chunks = [_padded(chunk) for chunk in x_TD.index_select(0, rows_R).split(counts)]
        # unbind: indexing W[e] inside autograd writes a full-size gradient an expert.
        weights = zip(self.gate_EFD.unbind(0), self.up_EFD.unbind(0), self.down_EDF.unbind(0), strict=True)
        out_RD = torch.cat(
            [
                F.linear(F.silu(F.linear(chunk, gate)) * F.linear(chunk, up), down)[:count]
                for count, chunk, (gate, up, down) in zip(counts, chunks, weights, strict=True)
                if count
            ]
        )
        out_RD = out_RD * gates_Tk.flatten().index_select(0, order_R)[:, None].to(out_RD.dtype)
        return torch.zeros_like(x_TD, dtype=out_RD.dtype).index_add(0, rows_R, out_RD)


def _padded(rows_CD: Tensor, multiple: int = 128) -> Tensor:
    """Many rows, filled with zeros up to a multiple: oneDNN builds a kernel for every new shape, and an expert's row
    count is new at every step. Unpadded, those builds took about 40 % of a training step on a CPU."""
    rows = len(rows_CD)
    return F.pad(rows_CD, (0, 0, 0, -rows % multiple)) if rows > multiple // 2 else rows_CD

"""The mixture-of-experts layer: one shared expert, many fine-grained routed ones (DeepSeekMoE, arXiv:2401.06066).

Routing is by default DeepSeek-V3's (arXiv:2412.19437, section 2.1.2): sigmoid scores, the top k chosen by score + bias,
the bias moved after each step so that the load evens out without an auxiliary loss (arXiv:2408.15664, algorithm 1).
Softmax scores, groups and gates that are scaled or do not sum to one are options of `MoEConfig`.

T tokens (batch flattened), D width, E routed experts, k chosen experts, G groups of e experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.balance import updated_bias
from vlm.language.config import LanguageConfig, MoEConfig
from vlm.language.experts import RoutedExperts


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int, bias: bool = False):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=bias)
        self.up_proj = nn.Linear(width, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Which experts a token goes to, and with what weight."""

    bias_E: Tensor
    load_E: Tensor

    def __init__(self, width: int, cfg: MoEConfig):
        super().__init__()
        self.cfg = cfg
        self.top_k = cfg.top_k
        self.bias_update_rate = cfg.bias_update_rate
        self.centroids = nn.Linear(width, cfg.experts, bias=False)
        self.register_buffer("bias_E", torch.zeros(cfg.experts), persistent=cfg.balanced)
        self.register_buffer("load_E", torch.zeros(cfg.experts), persistent=False)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and expert numbers, both `[T, k]`."""
        scores_TE = self.scores(x_TD)
        chosen_Tk = self.choose(scores_TE)
        gates_Tk = scores_TE.gather(1, chosen_Tk)
        if self.cfg.normalise:
            gates_Tk = gates_Tk / gates_Tk.sum(dim=-1, keepdim=True)
        if self.cfg.scale != 1.0:
            gates_Tk = gates_Tk * self.cfg.scale
        if self.training:
            self.load_E += torch.bincount(chosen_Tk.flatten(), minlength=len(self.load_E))
        return gates_Tk.to(x_TD.dtype), chosen_Tk

    def scores(self, x_TD: Tensor) -> Tensor:
        """How well each expert suits each token, `[T, E]`, float32."""
        logits_TE = self.centroids(x_TD).float()
        return logits_TE.sigmoid() if self.cfg.scoring == "sigmoid" else logits_TE.softmax(dim=-1)

    def choose(self, scores_TE: Tensor) -> Tensor:
        """The experts of each token, `[T, k]`: the best by score + bias, out of the best groups."""
        biased_TE = scores_TE + self.bias_E
        if self.cfg.groups > 1:
            biased_TE = biased_TE.masked_fill(~self._in_kept_groups(biased_TE), -torch.inf)
        return biased_TE.topk(self.top_k, dim=-1).indices

    def _in_kept_groups(self, biased_TE: Tensor) -> Tensor:
        grouped_TGe = biased_TE.unflatten(1, (self.cfg.groups, -1))
        best = 1 if self.cfg.group_score == "max" else 2
        value_TG = grouped_TGe.topk(best, dim=-1).values.sum(dim=-1)
        kept_TG = torch.zeros_like(value_TG, dtype=torch.bool)
        kept_TG.scatter_(1, value_TG.topk(self.cfg.groups_kept, dim=-1).indices, True)
        return kept_TG[:, :, None].expand_as(grouped_TGe).flatten(1)

    @torch.no_grad()
    def balance(self) -> None:
        """Raise the bias of experts that were called less than the mean since the last call, lower the others'.

        Routers of a config that is not `balanced` have no bias to move; they only forget the load.
        """
        if self.cfg.balanced:
            self.bias_E.copy_(updated_bias(self.bias_E, self.load_E, self.bias_update_rate))
        self.load_E.zero_()


class MixtureOfExperts(nn.Module):
    """`shared(x) + sum of gate * expert(x)` over the k chosen experts (arXiv:2401.06066, equation 9)."""

    def __init__(self, cfg: LanguageConfig):
        super().__init__()
        assert cfg.moe is not None
        shared_width = cfg.shared_width()
        self.shared = SwiGLU(cfg.width, shared_width, bias=cfg.ffn_bias) if shared_width else None
        self.shared_gate = nn.Linear(cfg.width, 1, bias=False) if cfg.moe.shared_gate else None
        self.router = Router(cfg.width, cfg.moe)
        self.routed = RoutedExperts(cfg.width, cfg.moe)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_TD = x_BTD.flatten(0, 1)
        routed_BTD = self.routed(x_TD, *self.router(x_TD)).view_as(x_BTD)
        if self.shared is None:
            return routed_BTD
        shared_BTD = self.shared(x_BTD)
        if self.shared_gate is not None:
            shared_BTD = self.shared_gate(x_BTD).sigmoid() * shared_BTD
        return shared_BTD + routed_BTD

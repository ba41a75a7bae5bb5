"""The mixture-of-experts layer: one shared expert, many fine-grained routed ones (DeepSeekMoE, arXiv:2401.06066).

Routing is by default DeepSeek-V3's (arXiv:2412.19437, section 2.1.2): sigmoid scores, the top k chosen by score + bias,
the bias moved after each step so that the load evens out without an auxiliary loss (arXiv:2408.15664, algorithm 1).
Softmax scores, groups, gates that are scaled or do not sum to one, auxiliary losses and as many experts as a token
needs are options of `MoEConfig`.

B sequences, T tokens, D width, E routed experts, k chosen experts, G groups of e experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.config.mixture import MoEConfig
from vlm.language.mixture.balance import batch_balance_loss, router_z_loss, sequence_balance_loss, updated_bias
from vlm.language.mixture.experts import RoutedExperts
from vlm.language.mixture.routing import budget_p, mass_before, within_mass

if TYPE_CHECKING:
    from vlm.language.config import LanguageConfig


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
    """Which experts a token goes to, and with what weight.

    In training it also keeps what a step needs of its last call: `load_E`, which moves the routing bias in `balance`,
    and `losses`, those that the config weighs, for `LanguageModel.router_losses` to collect.
    """

    bias_E: Tensor
    load_E: Tensor
    p: Tensor

    def __init__(self, width: int, cfg: MoEConfig):
        super().__init__()
        self.cfg = cfg
        self.top_k = cfg.top_k
        self.centroids = nn.Linear(width, cfg.experts, bias=False)
        self.losses: dict[str, Tensor] = {}
        self.register_buffer("bias_E", torch.empty(cfg.experts), persistent=cfg.balanced)
        self.register_buffer("load_E", torch.empty(cfg.experts), persistent=False)
        if cfg.adaptive is not None:
            self.register_buffer("p", torch.empty((), dtype=torch.float64))
        self.reset()

    def reset(self) -> None:
        """No bias, no load, the config's `p`."""
        self.bias_E.zero_()
        self.load_E.zero_()
        if self.cfg.adaptive is not None:
            self.p.fill_(self.cfg.adaptive.p)
            self.budget_p = self.cfg.adaptive.p

    def forward(self, x_BTD: Tensor, real_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gates and expert numbers, both `[B, T, k]`; or of `[T, D]`, one sequence, both `[T, k]`.

        With adaptive routing a slot that a token does not use has expert -1 and gate 0. Tokens where `real_BT` is false
        (padding) are routed, but count in no load and no loss.
        """
        logits_BTE = self.logits(x_BTD)
        scores_BTE = self.scores(logits_BTE)
        chosen_BTk = self.choose(scores_BTE)
        if self.cfg.adaptive is None:
            gates_BTk = scores_BTE.gather(-1, chosen_BTk)
        else:
            chosen_BTk = self._as_many_as_needed(scores_BTE, chosen_BTk, real_BT)
            gates_BTk = scores_BTE.gather(-1, chosen_BTk.clamp(min=0)) * (chosen_BTk >= 0)
        if self.cfg.normalise:
            gates_BTk = gates_BTk / gates_BTk.sum(dim=-1, keepdim=True)
        if self.cfg.scale != 1.0:
            gates_BTk = gates_BTk * self.cfg.scale
        if self.training:
            self._observe(logits_BTE, scores_BTE, chosen_BTk, real_BT)
        return gates_BTk.to(x_BTD.dtype), chosen_BTk

    def logits(self, x_BTD: Tensor) -> Tensor:
        """`[B, T, E]`, computed in float32 or finer: rounded to bfloat16, close experts change places."""
        dtype = torch.promote_types(x_BTD.dtype, torch.float32)
        return F.linear(x_BTD.to(dtype), self.centroids.weight.to(dtype))

    def scores(self, logits_BTE: Tensor) -> Tensor:
        """How well each expert suits each token, `[B, T, E]`."""
        return logits_BTE.sigmoid() if self.cfg.scoring == "sigmoid" else logits_BTE.softmax(dim=-1)

    def choose(self, scores_BTE: Tensor) -> Tensor:
        """The experts of each token, `[B, T, k]`, best first: by score + bias, out of the best groups."""
        biased_BTE = scores_BTE + self.bias_E
        if self.cfg.groups > 1:
            biased_BTE = biased_BTE.masked_fill(~self._in_kept_groups(biased_BTE), -torch.inf)
        return biased_BTE.topk(self.top_k, dim=-1).indices

    def _in_kept_groups(self, biased_BTE: Tensor) -> Tensor:
        grouped_BTGe = biased_BTE.unflatten(-1, (self.cfg.groups, -1))
        best = 1 if self.cfg.group_score == "max" else 2
        value_BTG = grouped_BTGe.topk(best, dim=-1).values.sum(dim=-1)
        kept_BTG = torch.zeros_like(value_BTG, dtype=torch.bool)
        kept_BTG.scatter_(-1, value_BTG.topk(self.cfg.groups_kept, dim=-1).indices, True)
        return kept_BTG[..., None].expand_as(grouped_BTGe).flatten(-2)

    def _as_many_as_needed(self, scores_BTE: Tensor, ranked_BTk: Tensor, real_BT: Tensor | None) -> Tensor:
        before_BTk = mass_before(scores_BTE, ranked_BTk)
        assert self.cfg.adaptive is not None
        if self.training and self.cfg.adaptive.budget is not None:
            counted_TK = before_BTk.flatten(0, -2) if real_BT is None else before_BTk[real_BT]
            self.budget_p = budget_p(counted_TK, self.cfg.adaptive.budget)
        return within_mass(ranked_BTk, before_BTk, self.p)

    def _observe(self, logits_BTE: Tensor, scores_BTE: Tensor, chosen_BTk: Tensor, real_BT: Tensor | None) -> None:
        if real_BT is not None:
            chosen_BTk = chosen_BTk.masked_fill(~real_BT[..., None], -1)
        self.load_E += torch.bincount(chosen_BTk.flatten() + 1, minlength=len(self.load_E) + 1)[1:]
        if scores_BTE.ndim == 2:
            logits_BTE, scores_BTE, chosen_BTk = logits_BTE[None], scores_BTE[None], chosen_BTk[None]
        cfg, self.losses = self.cfg, {}
        if cfg.sequence_balance:
            loss = sequence_balance_loss(scores_BTE, chosen_BTk, real_BT)
            self.losses["sequence_balance"] = cfg.sequence_balance * loss
        if cfg.batch_balance:
            self.losses["batch_balance"] = cfg.batch_balance * batch_balance_loss(scores_BTE, chosen_BTk, real_BT)
        if cfg.z_loss:
            self.losses["z_loss"] = cfg.z_loss * router_z_loss(logits_BTE, real_BT)

    @torch.no_grad()
    def balance(self) -> None:
        """After a step: raise the bias of experts that were called less than the mean since the last call and lower the
        others', move `p` towards the budget, and forget the load.

        Routers of a config that is not `balanced` have no bias to move.
        """
        if self.cfg.balanced:
            self.bias_E.copy_(updated_bias(self.bias_E, self.load_E, self.cfg.bias_update_rate))
        if self.cfg.adaptive is not None and self.cfg.adaptive.budget is not None:
            self.p += self.cfg.adaptive.rate * (self.budget_p - self.p)
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

    def forward(self, x_BTD: Tensor, real_BT: Tensor | None = None, sizes: tuple[int, ...] = ()) -> Tensor:
        """`real_BT` is false at padding, which counts in no load and no loss of the router. With `sizes` experts see
        so many rows at a time, so that no result depends on how many others chose the same, and padding sees none."""
        gates_BTk, chosen_BTk = self.router(x_BTD, real_BT)
        if sizes and real_BT is not None:
            chosen_BTk = chosen_BTk.masked_fill(~real_BT[..., None], -1)
        routed_TD = self.routed(x_BTD.flatten(0, 1), gates_BTk.flatten(0, 1), chosen_BTk.flatten(0, 1), sizes)
        routed_BTD = routed_TD.view_as(x_BTD)
        if self.shared is None:
            return routed_BTD
        shared_BTD = self.shared(x_BTD)
        if self.shared_gate is not None:
            shared_BTD = self.shared_gate(x_BTD).sigmoid() * shared_BTD
        return shared_BTD + routed_BTD

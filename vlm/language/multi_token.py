"""Multi-token prediction: small heads that look further ahead than the next token (DeepSeek-V3, arXiv:2412.19437,
section 2.2).

A head of depth d sees the state of depth d - 1 at a token and the embedding of the d-th token after it, and predicts
the one after that. Embedding and output layer are the model's own, handed in at every call and not kept here.

B batch, T tokens, D width, N depths, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiTokenHead(nn.Module):
    """One depth: `norm(block(project([norm(embedding), norm(state)])))` (equations 21 and 22).

    `block` is a layer of the decoder, called as `block(x_BTD, *context)`. The embedding comes first in the product, as
    in the published weights (`enorm`, `hnorm`, `eh_proj`, `shared_head.norm`); the paper writes it second.
    """

    def __init__(self, width: int, block: nn.Module, norm_eps: float = 1e-6):
        super().__init__()
        self.embedding_norm = nn.RMSNorm(width, eps=norm_eps)
        self.hidden_norm = nn.RMSNorm(width, eps=norm_eps)
        self.projection = nn.Linear(2 * width, width, bias=False)
        self.block = block
        self.output_norm = nn.RMSNorm(width, eps=norm_eps)

    def forward(self, hidden_BTD: Tensor, embedded_BTD: Tensor, *context: Any) -> Tensor:
        """Normalised states `[B, T, D]`, for the output layer and for the next depth."""
        both = torch.cat([self.embedding_norm(embedded_BTD), self.hidden_norm(hidden_BTD)], dim=-1)
        return self.output_norm(self.block(self.projection(both), *context))


class MultiTokenPrediction(nn.Module):
    """Heads of depth 1 to N, each reading the states of the one before."""

    def __init__(self, width: int, blocks: Sequence[nn.Module], norm_eps: float = 1e-6):
        super().__init__()
        self.heads = nn.ModuleList(MultiTokenHead(width, block, norm_eps) for block in blocks)

    def forward(
        self,
        hidden_BTD: Tensor,
        tokens_BT: Tensor,
        embed: Callable[[Tensor], Tensor],
        output: Callable[[Tensor], Tensor],
        *context: Any,
    ) -> list[Tensor]:
        """Logits `[B, T, V]` of each depth: those of depth d at token t are of token t + 1 + d.

        `hidden_BTD` are the trunk's normalised states, `embed` and `output` its embedding and output layer. `context`
        is what the trunk's own layers are given beside their input, for all T tokens: all depths work on whole
        sequences, since a causal block keeps the last d tokens, which have nothing to predict, from the others.
        """
        logits = []
        for depth, head in enumerate(self.heads, start=1):
            hidden_BTD = head(hidden_BTD, embed(later(tokens_BT, depth)), *context)
            logits.append(output(hidden_BTD))
        return logits


def multi_token_losses(logits: Sequence[Tensor], tokens_BT: Tensor, learned_BT: Tensor | None = None) -> Tensor:
    """Each depth's cross-entropy, `[N]`; the mean over its targets (equation 24), in float32 or finer.

    `learned_BT` is true at tokens that are worth predicting (replies, not padding). Add `weight * losses.mean()` to the
    loss of the next token (equation 25; DeepSeek-V3 has 0.3, later 0.1). A depth without any target has loss 0.
    """
    learned_BT = torch.ones_like(tokens_BT, dtype=torch.bool) if learned_BT is None else learned_BT
    losses = []
    for depth, logits_BTV in enumerate(logits, start=1):
        ahead = depth + 1
        here_BT = later(learned_BT, ahead)
        logits_RV = logits_BTV[here_BT]
        logits_RV = logits_RV.float() if logits_RV.dtype.itemsize < 4 else logits_RV
        total = F.cross_entropy(logits_RV, later(tokens_BT, ahead)[here_BT], reduction="sum")
        losses.append(total / here_BT.sum().clamp(min=1))
    return torch.stack(losses)


def later(of_BT: Tensor, by: int) -> Tensor:
    """What stands `by` tokens after each; 0 or false past the end."""
    return F.pad(of_BT[:, by:], (0, min(by, of_BT.shape[1])))

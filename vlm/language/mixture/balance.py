"""What keeps experts evenly loaded: auxiliary losses, the router z-loss, and the rule that moves routing biases.

The losses share one form, `sum over experts of load_E * mean score_E`, and are 1 when both are even and the scores of
a token sum to one. Weigh them (DeepSeek-V2: 0.003, DeepSeek-V3: 0.0001, Switch: 0.01) and add them to the model's loss.
Scores and logits are float32 or finer: in bfloat16 a count beyond 256 is lost.

B sequences, T tokens, E routed experts, k chosen experts a token.
"""

from __future__ import annotations

import torch
from torch import Tensor


def relative_load(
    chosen_BTk: Tensor, experts: int, mask_BT: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """How often each expert is called in each sequence, `[B, E]`; 1 is its fair share (arXiv:2412.19437, eq. 18).

    Tokens where `mask_BT` is false (padding) and slots of expert -1 (not used) do not count; a sequence of none but
    such has a load of 0.
    """
    counts_BTk = (chosen_BTk >= 0).to(dtype) * _weights(chosen_BTk, mask_BT, dtype)[..., None]
    calls_BE = torch.zeros(len(chosen_BTk), experts, dtype=dtype, device=chosen_BTk.device)
    calls_BE.scatter_add_(1, chosen_BTk.flatten(1).clamp(min=0), counts_BTk.flatten(1))
    return calls_BE * experts / calls_BE.sum(1, keepdim=True).clamp(min=1)


def sequence_balance_loss(scores_BTE: Tensor, chosen_BTk: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """The mean over sequences of each sequence's balance loss (arXiv:2412.19437, eq. 17 to 20; 2405.04434, eq. 23).

    `scores_BTE` are softmax or sigmoid scores, not negative; eq. 19 makes a token's sum to one. Gradients reach the
    scores alone: counting calls has none.
    """
    load_BE = relative_load(chosen_BTk, scores_BTE.shape[2], mask_BT, scores_BTE.dtype)
    return _mean_over_sequences((load_BE * mean_scores(scores_BTE, mask_BT)).sum(1), chosen_BTk, mask_BT)


def batch_balance_loss(scores_BTE: Tensor, chosen_BTk: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """The balance loss over all tokens of the batch at once (Switch, arXiv:2101.03961, eq. 4 to 6, for any k).

    It asks less than the sequence-wise loss: one sequence may lean on few experts where another makes up for it.
    """
    mask_1R = None if mask_BT is None else mask_BT.reshape(1, -1)
    return sequence_balance_loss(scores_BTE.flatten(0, 1)[None], chosen_BTk.flatten(0, 1)[None], mask_1R)


def mean_scores(scores_BTE: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """Each sequence's mean of the scores, a token's made to sum to one, `[B, E]` (arXiv:2412.19437, eq. 19 and 20)."""
    weight_BT = _weights(scores_BTE, mask_BT, scores_BTE.dtype)
    shares_BTE = scores_BTE / scores_BTE.sum(-1, keepdim=True)
    return (shares_BTE * weight_BT[..., None]).sum(1) / weight_BT.sum(1).clamp(min=1)[:, None]


def router_z_loss(logits_BTE: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """The mean over tokens of `logsumexp(logits)^2`: keeps router logits small (ST-MoE, arXiv:2202.08906, eq. 5)."""
    weight_BT = _weights(logits_BTE, mask_BT, logits_BTE.dtype)
    return (logits_BTE.logsumexp(-1).square() * weight_BT).sum() / weight_BT.sum().clamp(min=1)


def updated_bias(bias_E: Tensor, load_E: Tensor, rate: float) -> Tensor:
    """The routing bias after a step in which expert `e` was called `load_E[e]` times (arXiv:2408.15664, algorithm 1).

    Whoever was called less than the mean rises by `rate`, whoever more falls by it: the sign of the error alone, which
    the paper found better than its size. The bias chooses experts and never enters a gate.
    """
    load_E = load_E.to(bias_E.dtype)
    return bias_E + rate * torch.sign(load_E.mean() - load_E)


def _weights(of_BTx: Tensor, mask_BT: Tensor | None, dtype: torch.dtype) -> Tensor:
    """1 where a token counts, else 0, `[B, T]`."""
    if mask_BT is None:
        return torch.ones(of_BTx.shape[:2], dtype=dtype, device=of_BTx.device)
    return mask_BT.to(dtype)


def _mean_over_sequences(loss_B: Tensor, of_BTx: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Sequences in which no token counts have no loss, and do not make the others' smaller."""
    return loss_B.sum() / _weights(of_BTx, mask_BT, loss_B.dtype).any(1).sum().clamp(min=1)

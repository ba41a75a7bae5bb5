"""Adaptive routing: a token takes as many experts as it needs (top-p routing, arXiv:2403.07652, section 3.2).

An easy token, whose router is sure, reaches the wanted probability mass with one expert; a hard one takes more.

T tokens, E routed experts, R chosen pairs of token and expert.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def top_p(scores_TE: Tensor, p: float, k_max: int, bias_E: Tensor | None = None) -> Tensor:
    """True where a token calls an expert, `[T, E]`: its best experts until their mass reaches `p`.

    At least one and at most `k_max` experts a token; `p` of 1 or more is plain top-`k_max`. `scores_TE` are softmax or
    sigmoid scores; a token's mass is counted in shares of their sum. With `bias_E` (arXiv:2408.15664) experts are
    tried in the order of score + bias; the mass stays that of the scores.
    """
    order_Tk, before_Tk = _mass_before(scores_TE, k_max, bias_E)
    taken_Tk = before_Tk < (p if p < 1 else math.inf)
    taken_Tk[:, 0] = True
    return torch.zeros_like(scores_TE, dtype=torch.bool).scatter_(1, order_Tk, taken_Tk)


def budget_p(scores_TE: Tensor, budget: float, k_max: int, bias_E: Tensor | None = None) -> float:
    """The largest `p` with which these tokens call at most `budget` experts each in the mean.

    The answer depends on all tokens given. Find it on a sample and keep it: searched anew in every batch, a token's
    output would depend on its neighbours, and on tokens after it. Raises `ValueError` for a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} experts a token; every token calls at least one")
    _, before_Tk = _mass_before(scores_TE, k_max, bias_E)
    tokens = len(before_Tk)
    # A pair beyond a token's first is taken where the mass before it is below p. So p may be as large as the first
    # mass that is one pair too many, and no search is needed.
    more = math.floor(budget * tokens) - tokens
    before_R = before_Tk[:, 1:].flatten()
    if more >= len(before_R):
        return 1.0
    # No p below 1 takes a pair whose mass before it is 1 in floating point; a p of 1 would.
    return min(before_R.kthvalue(more + 1).values.item(), math.nextafter(1.0, 0.0))


def gates(scores_TE: Tensor, mask_TE: Tensor, normalise: bool = True) -> Tensor:
    """Gates `[T, E]`: the scores where `mask_TE` is true, else 0; with `normalise` a token's sum to one."""
    gates_TE = scores_TE * mask_TE
    return gates_TE / gates_TE.sum(1, keepdim=True) if normalise else gates_TE


def pairs(mask_TE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Chosen pairs in the order a dropless layer computes them: token and expert of each, `[R]`, and rows an expert,
    `[E]`. Sorted by expert, then by token."""
    experts_R, tokens_R = mask_TE.T.nonzero(as_tuple=True)
    return tokens_R, experts_R, mask_TE.sum(0)


def _mass_before(scores_TE: Tensor, k_max: int, bias_E: Tensor | None) -> tuple[Tensor, Tensor]:
    """A token's `k_max` best experts, best first, and the probability mass of those before each."""
    if not 1 <= k_max <= scores_TE.shape[1]:
        raise ValueError(f"k_max {k_max} with {scores_TE.shape[1]} experts")
    ranked_TE = scores_TE if bias_E is None else scores_TE + bias_E
    order_Tk = ranked_TE.topk(k_max, dim=1).indices
    # Float64: the sum of many float32 shares would decide by its rounding whether a p is reached.
    shares_TE = scores_TE.detach().double()
    shares_Tk = (shares_TE / shares_TE.sum(1, keepdim=True)).gather(1, order_Tk)
    return order_Tk, shares_Tk.cumsum(1) - shares_Tk

"""Adaptive routing: a token takes as many experts as it needs (top-p routing, arXiv:2403.07652, section 3.2).

An easy token, whose router is sure, reaches the wanted probability mass with one expert; a hard one takes more.

T tokens (with any axes before), E routed experts, k slots for experts; a slot that is not used holds expert -1.
"""

from __future__ import annotations

import math

from torch import Tensor


def mass_before(scores_TE: Tensor, ranked_Tk: Tensor) -> Tensor:
    """The probability mass of the experts before each in a token's ranking, `[T, k]`, float64.

    `scores_TE` are softmax or sigmoid scores; a token's mass is counted in shares of their sum. `ranked_Tk` are its
    experts, best first; a routing bias (arXiv:2408.15664) changes their order, and the mass stays that of the scores.
    """
    # Float64: the sum of many float32 shares would decide by its rounding whether a p is reached.
    shares_TE = scores_TE.detach().double()
    shares_Tk = (shares_TE / shares_TE.sum(-1, keepdim=True)).gather(-1, ranked_Tk)
    return shares_Tk.cumsum(-1) - shares_Tk


def within_mass(ranked_Tk: Tensor, before_Tk: Tensor, p: Tensor | float) -> Tensor:
    """The experts a token takes, `[T, k]`: its best until their mass reaches `p`, and -1 in the slots after them.

    At least one is taken. A `p` of 1 or more takes all, also where some have no mass.
    """
    used_Tk = (before_Tk < p) | (p >= 1)
    used_Tk[..., 0] = True
    return ranked_Tk.masked_fill(~used_Tk, -1)


def budget_p(before_Tk: Tensor, budget: float) -> float:
    """The largest `p` with which these tokens take at most `budget` experts each in the mean.

    The answer depends on all tokens given. Find it on a sample and keep it: searched anew in every batch, a token's
    output would depend on its neighbours, and on tokens after it. Raises `ValueError` for a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} experts a token; every token calls at least one")
    before_Tk = before_Tk.flatten(0, -2)
    tokens = len(before_Tk)
    # A pair beyond a token's first is taken where the mass before it is below p. So p may be as large as the first
    # mass that is one pair too many, and no search is needed.
    more = math.floor(budget * tokens) - tokens
    before_R = before_Tk[:, 1:].flatten()
    if more >= len(before_R):
        return 1.0
    # No p below 1 takes a pair whose mass before it is 1 in floating point; a p of 1 would.
    return min(before_R.kthvalue(more + 1).values.item(), math.nextafter(1.0, 0.0))

"""Which tokens may be looked at, as masks: true where a query may look.

B batch, T query tokens, S tokens attended to, of which the queries are the last T.
"""

from __future__ import annotations

import torch
from torch import Tensor


def causal_mask(tokens: int, past: int, device: torch.device) -> Tensor:
    """`[1, T, past + T]`: each token and what is before it."""
    return torch.ones(1, tokens, past + tokens, dtype=torch.bool, device=device).tril_(past)


def window_mask(tokens: int, past: int, window: int, device: torch.device) -> Tensor:
    """`causal_mask` without what lies `window` tokens back or further."""
    return causal_mask(tokens, past, device).triu_(past - window + 1)


def shown_mask(mask_BTS: Tensor | None, tokens: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """The mask that `None` (causal) and a window stand for, `[B, T, S]`."""
    past = keys - tokens
    if window is None or window >= keys:
        return causal_mask(tokens, past, device) if mask_BTS is None else mask_BTS
    near = window_mask(tokens, past, window, device)
    return near if mask_BTS is None else near & mask_BTS


def padded(real_BS: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Positions `[B, T]` and mask `[B, T, S]` of the last `tokens` of padded sequences."""
    return positions(real_BS)[:, real_BS.shape[1] - tokens :], padded_mask(real_BS, tokens)


def positions(real_BS: Tensor) -> Tensor:
    """Each token's place `[B, S]` among the real ones of its sequence."""
    return (real_BS.long().cumsum(1) - 1).clamp(min=0)


def padded_mask(real_BS: Tensor, tokens: int) -> Tensor:
    """`[B, T, S]`: real tokens, causally."""
    past = real_BS.shape[1] - tokens
    causal = causal_mask(tokens, past, real_BS.device)
    # A padding row looks at itself, so that its softmax is defined; nobody looks at it.
    return (real_BS.bool()[:, None] & causal) | causal.triu(past)

"""Softmax attention of T queries, the last T of S tokens, to all of them or to a window.

Written out (`plain_attention`), and through torch's fused kernel in the forms that are fast on a CPU (`attend`): no
mask of `[T, S]` where the causal order or a window says what is hidden, and keys read once for all heads of a group.

B batch, T tokens, S tokens attended to, H query heads, G key-value heads, r = H / G, K head width, V value width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vlm.language.attention.masks import shown_mask

QUERIES = 512
"""Queries of a windowed layer that are computed together: each of them reads the keys of all their windows."""
SPLIT_KEYS = 4096
"""From so many keys on, a single query's are shared out among threads."""
_fused_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""Torch's own entry to its fused CPU kernel, the only one that gives the logarithms of the sums under the softmax."""


def attend(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSV: Tensor,
    mask_BTS: Tensor | None,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Softmax attention `[B, H, T, V]`.

    `mask_BTS` is true where a query may look, and may reach further back than the keys do; `None` means causal. With a
    `window` a query sees itself and the `window - 1` tokens before it. `scale` is 1 / sqrt(K) by default.
    """
    tokens, keys, width = q_BHTK.shape[2], k_BGSK.shape[2], v_BGSV.shape[3]
    if window is not None and keys >= tokens + window:  # the oldest keys are seen by no query
        keys = tokens + window - 1
        k_BGSK, v_BGSV = k_BGSK[:, :, -keys:], v_BGSV[:, :, -keys:]
    mask_BTS = None if mask_BTS is None else mask_BTS[..., mask_BTS.shape[2] - keys :]
    scale = q_BHTK.shape[3] ** -0.5 if scale is None else scale
    if torch.is_grad_enabled() and q_BHTK.device.type == "cpu":
        shown_BTS = shown_mask(mask_BTS, tokens, keys, window, q_BHTK.device)
        return plain_attention(q_BHTK, k_BGSK, v_BGSV, shown_BTS, scale)

    q_BHTK, k_BGSK, v_BGSV = _of_one_width(q_BHTK, k_BGSK, v_BGSV)
    if tokens == 1:
        parts = torch.get_num_threads() // (q_BHTK.shape[0] * k_BGSK.shape[1])
        split = parts > 1 and keys >= SPLIT_KEYS and mask_BTS is None and q_BHTK.device.type == "cpu"
        q_BGRK = _together(q_BHTK, k_BGSK)
        if split and len(q_BHTK) == 1:
            out_BGRV = _split(q_BGRK, k_BGSK, v_BGSV, scale, parts)
        else:
            out_BGRV = _fused(q_BGRK, k_BGSK, v_BGSV, mask_BTS, scale)
        out_BHTV = _apart(out_BGRV, tokens)
    elif window is not None and window < keys:
        out_BHTV = _banded(q_BHTK, k_BGSK, v_BGSV, mask_BTS, scale, window)
    elif mask_BTS is None and keys > tokens and q_BHTK.device.type == "cpu":
        out_BHTV = _behind(q_BHTK, k_BGSK, v_BGSV, scale)
    else:
        if mask_BTS is None and keys > tokens:
            mask_BTS = shown_mask(None, tokens, keys, None, q_BHTK.device)
        out_BHTV = _fused(q_BHTK, k_BGSK, v_BGSV, mask_BTS, scale, causal=mask_BTS is None)
    return out_BHTV[..., :width]


def plain_attention(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, mask_BTS: Tensor | None, scale: float | None = None
) -> Tensor:
    """Softmax attention written out, `[B, H, T, V]`; `None` means causal.

    Also the training path on a CPU, where the backward pass of torch's fused kernel is the slowest part of a step
    (half of it, at 16 sequences of 107 tokens).
    """
    tokens, width = q_BHTK.shape[2:]
    scale = width**-0.5 if scale is None else scale
    q_BGRK = _together(q_BHTK * scale, k_BGSK)
    scores = (q_BGRK @ k_BGSK.transpose(-1, -2)).unflatten(2, (-1, tokens))
    if mask_BTS is None:
        mask_BTS = shown_mask(None, tokens, k_BGSK.shape[2], None, q_BHTK.device)
    hidden = torch.zeros_like(mask_BTS, dtype=scores.dtype).masked_fill_(~mask_BTS, torch.finfo(scores.dtype).min)
    # In place: neither the product nor the softmax needs the scores without the mask for its gradient.
    scores += hidden[:, None, None]
    return _apart(scores.softmax(dim=-1).flatten(2, 3) @ v_BGSV, tokens)


def _together(q_BHTK: Tensor, k_BGSK: Tensor) -> Tensor:
    """Query heads of a group stacked along T, `[B, G, r * T, K]`: one product a group, keys and values not repeated."""
    return q_BHTK.unflatten(1, (k_BGSK.shape[1], -1)).flatten(2, 3)


def _apart(out_BGRV: Tensor, tokens: int) -> Tensor:
    return out_BGRV.unflatten(2, (-1, tokens)).flatten(1, 2)


def _fused(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, mask_BTS: Tensor | None, scale: float, causal: bool = False
) -> Tensor:
    """Torch's kernel. Without a mask and not `causal`, every query sees every key."""
    mask = None if mask_BTS is None else mask_BTS[:, None]
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSV, attn_mask=mask, is_causal=causal, enable_gqa=True, scale=scale
    )


def _of_one_width(*parts: Tensor) -> tuple[Tensor, ...]:
    """Zeros behind what is narrower: they change no score, and torch's fused kernels want one width."""
    widest = max(part.shape[-1] for part in parts)
    return tuple(part if part.shape[-1] == widest else F.pad(part, (0, widest - part.shape[-1])) for part in parts)


def _banded(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, mask_BTS: Tensor | None, scale: float, window: int
) -> Tensor:
    """A window's attention, some queries at a time with the keys that any of them sees."""
    tokens, past = q_BHTK.shape[2], k_BGSK.shape[2] - q_BHTK.shape[2]
    parts = []
    for begin in range(0, tokens, QUERIES):
        end = min(begin + QUERIES, tokens)
        near = slice(max(0, past + begin - window + 1), past + end)
        seen_BTS = None if mask_BTS is None else mask_BTS[:, begin:end, near]
        shown_BTS = shown_mask(seen_BTS, end - begin, near.stop - near.start, window, q_BHTK.device)
        q_BHtK, k_BGsK, v_BGsV = q_BHTK[:, :, begin:end], k_BGSK[:, :, near], v_BGSV[:, :, near]
        parts.append(_fused(q_BHtK, k_BGsK, v_BGsV, shown_BTS, scale))
    return torch.cat(parts, dim=2)


def _behind(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, scale: float) -> Tensor:
    """Causal attention of a chunk behind a longer past: to the past, which all of it sees, and within the chunk.

    The two are put together by the sums under their softmaxes; against a mask of `[T, S]` that is 1.3 to 1.7 times
    faster at 16K to 128K keys.
    """
    tokens, past = q_BHTK.shape[2], k_BGSK.shape[2] - q_BHTK.shape[2]
    stacked = _together(q_BHTK, k_BGSK)
    before, sums_before = _fused_cpu(stacked, k_BGSK[:, :, :past], v_BGSV[:, :, :past], scale=scale)
    heads = q_BHTK.shape[1] // k_BGSK.shape[1]
    k_BHTK, v_BHTV = (part[:, :, past:].repeat_interleave(heads, dim=1) for part in (k_BGSK, v_BGSV))
    within, sums_within = _fused_cpu(q_BHTK, k_BHTK, v_BHTV, is_causal=True, scale=scale)
    share = (sums_before.unflatten(2, (-1, tokens)).flatten(1, 2) - sums_within).sigmoid()
    return torch.lerp(within, _apart(before, tokens), share[..., None].to(within.dtype))


def _split(q_1GRK: Tensor, k_1GSK: Tensor, v_1GSV: Tensor, scale: float, parts: int) -> Tensor:
    """Attention to all keys, in parts that threads take at once (flash decoding): the kernel alone shares out queries.

    A half of the time at 128K keys of one head and two threads.
    """
    each = k_1GSK.shape[2] // parts
    k_PGsK, v_PGsV = (
        whole[0, :, : parts * each].unflatten(1, (parts, each)).transpose(0, 1) for whole in (k_1GSK, v_1GSV)
    )
    out_PGRV, sums_PGR = _fused_cpu(q_1GRK.expand(parts, -1, -1, -1), k_PGsK, v_PGsV, scale=scale)
    if parts * each < k_1GSK.shape[2]:
        rest = _fused_cpu(q_1GRK, k_1GSK[:, :, parts * each :], v_1GSV[:, :, parts * each :], scale=scale)
        out_PGRV, sums_PGR = (torch.cat(pair) for pair in zip((out_PGRV, sums_PGR), rest, strict=True))
    shares_PGR1 = sums_PGR.softmax(0)[..., None].to(out_PGRV.dtype)
    return (out_PGRV * shares_PGR1).sum(0, keepdim=True)

"""Attention to few chosen tokens that gathers their keys and values, so that it costs as much behind a long past as
behind a short one; and the choice of blocks for models that were not trained to choose.

The same as attention under the mask of the choice (`sparse_attention.py`), which is the faster one while what is chosen
is a large part of what there is.

B batch, T query tokens, S tokens, of which the queries are the last T, H query heads, G key-value heads, K head width,
V value width, k chosen tokens, N blocks of tokens, n chosen blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vlm.language.attention.attend import attend
from vlm.language.attention.masks import shown_mask
from vlm.language.attention.sparse import attention_mass, heavy_block_mask, top_tokens

GATHERED_NUMBERS = 2**18
"""Keys are gathered for so many queries at a time that they fit a processor's cache."""
SCORED_QUERIES = 512
"""Queries whose blocks are chosen together."""


@dataclass(frozen=True)
class HeavyBlocks:
    """Each query's own block of `size` keys and the `count - 1` earlier ones whose mean key it attends to most
    (`heavy_block_mask`)."""

    size: int
    count: int


def gathering_pays(tokens: int, keys: int, chosen: int, heads: float) -> bool:
    """Whether to gather `chosen` of `keys`, where `heads` query heads share each.

    Gathered keys are read, written and read again. Attention of one query reads its keys, too, and that of many queries
    shares them: it pays later there, and earlier the more heads there are to multiply with. The factors are measured.
    """
    least = chosen * (4 if tokens == 1 else 4 + 48 / heads)
    return keys > least and not torch.is_grad_enabled()


def attend_chosen(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, chosen_BTk: Tensor, there_BTk: Tensor, scale: float | None = None
) -> Tensor:
    """Softmax attention `[B, H, T, V]` of each query to the tokens `chosen_BTk` where `there_BTk` is true.

    Values that are the keys themselves are gathered once. `scale` is 1 / sqrt(K) by default.
    """
    groups, width, chosen = k_BGSK.shape[1], k_BGSK.shape[3], chosen_BTk.shape[2]
    at_once = max(1, GATHERED_NUMBERS // (width * chosen))
    q_BGTrK = q_BHTK.unflatten(1, (groups, -1)).transpose(2, 3)
    out_BGTrV = q_BGTrK.new_empty(*q_BGTrK.shape[:-1], v_BGSV.shape[3])
    for b, g in itertools.product(range(len(q_BHTK)), range(groups)):
        for begin in range(0, q_BHTK.shape[2], at_once):
            part = slice(begin, begin + at_once)
            k_tkK = _gather(k_BGSK[b, g], chosen_BTk[b, part])
            v_tkV = k_tkK if v_BGSV is k_BGSK else _gather(v_BGSV[b, g], chosen_BTk[b, part])
            mask_t1k = there_BTk[b, part, None]
            out_BGTrV[b, g, part] = F.scaled_dot_product_attention(
                q_BGTrK[b, g, part, None], k_tkK[:, None], v_tkV[:, None], attn_mask=mask_t1k[:, None], scale=scale
            )[:, 0]
    return out_BGTrV.transpose(2, 3).flatten(1, 2)


def _gather(of_SK: Tensor, chosen_tk: Tensor) -> Tensor:
    """`[t, k, K]`. One head of a cache at a time: its tokens lie together, where a cache of many would be copied."""
    return of_SK.index_select(0, chosen_tk.flatten()).unflatten(0, chosen_tk.shape)


def attend_blocks(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSV: Tensor,
    blocks: HeavyBlocks,
    mask_BTS: Tensor | None,
    means: Callable[[Tensor, int], Tensor],
    scale: float | None = None,
) -> Tensor:
    """Softmax attention `[B, H, T, V]` of each query to its heaviest blocks of keys.

    `means(k_BGSK, size)` gives the mean keys of complete blocks `[B, G, N, K]`; they are asked for where there is no
    mask: with one (padding, packing) and with gradients, attention is computed under the mask of the choice.
    """
    tokens, keys = q_BHTK.shape[2], k_BGSK.shape[2]
    heads = q_BHTK.shape[1] / k_BGSK.shape[1]
    if mask_BTS is None and gathering_pays(tokens, keys, blocks.size * blocks.count, heads):
        chosen_BTk, there_BTk = choose_blocks(q_BHTK, means(k_BGSK, blocks.size), keys, blocks, scale)
        return attend_chosen(q_BHTK, k_BGSK, v_BGSV, chosen_BTk, there_BTk, scale)
    if keys > blocks.size * blocks.count:
        shown_BTS = shown_mask(mask_BTS, tokens, keys, None, q_BHTK.device)
        mask_BTS = heavy_block_mask(q_BHTK, k_BGSK, blocks.size, blocks.count, shown_BTS, scale)
    return attend(q_BHTK, k_BGSK, v_BGSV, mask_BTS, scale)


def choose_blocks(
    q_BHTK: Tensor, means_BGNK: Tensor, keys: int, blocks: HeavyBlocks, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Numbers `[B, T, k]` of the tokens in each query's heaviest blocks, and true where it sees that many.

    `means_BGNK` are the mean keys of the complete blocks of `keys` tokens in causal order.
    """
    device, past = q_BHTK.device, keys - q_BHTK.shape[2]
    numbers_N = torch.arange(means_BGNK.shape[2], device=device)
    within = torch.arange(blocks.size, device=device)
    parts = []
    for q_BHtK in q_BHTK.split(SCORED_QUERIES, dim=2):
        at_t1 = torch.arange(past, past := past + q_BHtK.shape[2], device=device)[:, None]
        own_t1 = at_t1 // blocks.size
        earlier_BtN = (numbers_N < own_t1)[None]
        scores_BtN = attention_mass(q_BHtK, means_BGNK, earlier_BtN, scale)
        best_Btn, there_Btn = top_tokens(scores_BtN, blocks.count - 1, earlier_BtN)
        best_Btn = torch.cat([best_Btn, own_t1.expand(len(best_Btn), -1, 1)], dim=2)
        there_Btn = F.pad(there_Btn, (0, 1), value=True)
        chosen_Btk = (best_Btn[..., None] * blocks.size + within).flatten(2)
        there_Btk = there_Btn.repeat_interleave(blocks.size, dim=2) & (chosen_Btk <= at_t1)
        parts.append((chosen_Btk.clamp(max=keys - 1), there_Btk))
    chosen, there = zip(*parts, strict=True)
    return torch.cat(chosen, dim=1), torch.cat(there, dim=1)

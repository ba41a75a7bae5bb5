"""Grouped-query attention (arXiv:2305.13245) with rotary positions (arXiv:2104.09864).

B batch, T tokens, S tokens attended to, D width, H query heads, G key-value heads, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.config import GroupedQueryConfig, LanguageConfig
from vlm.language.kv_cache import KVCache
from vlm.language.rotary import Rotary, rotate

__all__ = ["GroupedQueryAttention", "Rotary", "attend", "plain_attention", "rotate"]


class GroupedQueryAttention(nn.Module):
    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        options = cfg.attention
        assert isinstance(options, GroupedQueryConfig)
        self.layer, self.head_width = layer, cfg.head_width
        self.interleaved, self.clip = cfg.rope.interleaved, options.clip
        self.q_proj = nn.Linear(cfg.width, cfg.heads * cfg.head_width, bias=options.qkv_bias)
        self.k_proj = nn.Linear(cfg.width, cfg.kv_heads * cfg.head_width, bias=options.qkv_bias)
        self.v_proj = nn.Linear(cfg.width, cfg.kv_heads * cfg.head_width, bias=options.qkv_bias)
        self.o_proj = nn.Linear(cfg.heads * cfg.head_width, cfg.width, bias=options.o_bias)
        self.norm_all_heads = options.qk_norm == "all"
        self.q_norm = self.k_norm = None
        if options.qk_norm is not None:
            q_heads, k_heads = (cfg.heads, cfg.kv_heads) if self.norm_all_heads else (1, 1)
            self.q_norm = nn.RMSNorm(q_heads * cfg.head_width, eps=cfg.norm_eps)
            self.k_norm = nn.RMSNorm(k_heads * cfg.head_width, eps=cfg.norm_eps)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BTS: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """`mask_BTS` is true where a token may look; `None` means causal."""
        q_BHTK = rotate(self._heads(self.q_proj(x_BTD), self.q_norm), rotary, self.interleaved)
        k_BGSK = rotate(self._heads(self.k_proj(x_BTD), self.k_norm), rotary, self.interleaved)
        v_BGSK = self._heads(self.v_proj(x_BTD), None)
        if cache is not None:
            k_BGSK, v_BGSK = cache.append(self.layer, k_BGSK, v_BGSK)
        out_BHTK = attend(q_BHTK, k_BGSK, v_BGSK, mask_BTS)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2))

    def _heads(self, x_BTC: Tensor, norm: nn.RMSNorm | None) -> Tensor:
        """`[B, heads, T, K]` of a projection, normalised and clipped where the family does."""
        if norm is not None and self.norm_all_heads:
            x_BTC = norm(x_BTC)
        if self.clip is not None:
            x_BTC = x_BTC.clamp(-self.clip, self.clip)
        x_BTHK = x_BTC.unflatten(-1, (-1, self.head_width))
        if norm is not None and not self.norm_all_heads:
            x_BTHK = norm(x_BTHK)
        return x_BTHK.transpose(1, 2)


def attend(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, mask_BTS: Tensor | None, scale: float | None = None
) -> Tensor:
    """Softmax attention `[B, H, T, V]`; `mask_BTS` as above, `scale` is 1 / sqrt(K) by default."""
    if torch.is_grad_enabled() and q_BHTK.device.type == "cpu":
        return plain_attention(q_BHTK, k_BGSK, v_BGSV, mask_BTS, scale)
    mask = None if mask_BTS is None else mask_BTS[:, None]
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSV, attn_mask=mask, is_causal=mask is None, enable_gqa=True, scale=scale
    )


def plain_attention(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, mask_BTS: Tensor | None, scale: float | None = None
) -> Tensor:
    """Softmax attention written out, `[B, H, T, V]`.

    Also the training path on a CPU, where the backward pass of torch's fused kernel is the slowest part of a step
    (half of it, at 16 sequences of 107 tokens).
    """
    groups, tokens, width = k_BGSK.shape[1], q_BHTK.shape[2], q_BHTK.shape[3]
    scale = width**-0.5 if scale is None else scale
    # Query heads of a group are stacked along T: one product a group, keys and values not repeated.
    q_BGRK = (q_BHTK * scale).unflatten(1, (groups, -1)).flatten(2, 3)
    scores = (q_BGRK @ k_BGSK.transpose(-1, -2)).unflatten(2, (-1, tokens))
    if mask_BTS is None:
        mask_BTS = torch.ones(1, tokens, k_BGSK.shape[2], dtype=torch.bool, device=q_BHTK.device).tril()
    hidden = torch.zeros_like(mask_BTS, dtype=scores.dtype).masked_fill_(~mask_BTS, torch.finfo(scores.dtype).min)
    # In place: neither the product nor the softmax needs the scores without the mask for its gradient.
    scores += hidden[:, None, None]
    out_BGRV = scores.softmax(dim=-1).flatten(2, 3) @ v_BGSV
    return out_BGRV.unflatten(2, (-1, tokens)).flatten(1, 2)

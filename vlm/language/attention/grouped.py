"""Grouped-query attention (arXiv:2305.13245) with rotary positions (arXiv:2104.09864).

B batch, T tokens, S tokens attended to, D width, H query heads, G key-value heads, K head width.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vlm.language.attention.attend import attend, plain_attention
from vlm.language.attention.gathered import HeavyBlocks, attend_blocks
from vlm.language.attention.kv_cache import Apart, KVCache, block_means, each, whole
from vlm.language.attention.rotary import Rotary, rotate
from vlm.language.config.attention import GroupedQueryConfig

if TYPE_CHECKING:
    from vlm.language.config import LanguageConfig

__all__ = ["GroupedQueryAttention", "Rotary", "attend", "plain_attention", "rotate"]


class GroupedQueryAttention(nn.Module):
    blocks: HeavyBlocks | None = None
    """Look at the heaviest blocks of keys alone, in a model that was not trained for it."""

    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        options = cfg.attention
        assert isinstance(options, GroupedQueryConfig)
        self.layer, self.head_width, self.window = layer, cfg.head_width, cfg.window_of(layer)
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
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BTS: Tensor | None, cache: KVCache | Apart | None
    ) -> Tensor:
        """`mask_BTS` is true where a token may look; `None` means causal."""
        q_BHTK = rotate(self._heads(self.q_proj(x_BTD), self.q_norm), rotary, self.interleaved)
        k_BGSK = rotate(self._heads(self.k_proj(x_BTD), self.k_norm), rotary, self.interleaved)
        v_BGSK = self._heads(self.v_proj(x_BTD), None)
        parts = [
            self._seen(q_BHTK[:, :, part], k_BGSK[:, :, part], v_BGSK[:, :, part], mask_BTS, one)
            for part, one in each(cache)
        ]
        out_BHTK = whole(parts, x_BTD.shape[1])
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2))

    def _seen(
        self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask_BTS: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        if cache is not None:
            k_BGSK, v_BGSK = cache.append(self.layer, k_BGSK, v_BGSK)
        if self.blocks is not None and self.window is None:
            means = block_means if cache is None else partial(cache.block_means, self.layer)
            return attend_blocks(q_BHTK, k_BGSK, v_BGSK, self.blocks, mask_BTS, means)
        return attend(q_BHTK, k_BGSK, v_BGSK, mask_BTS, window=self.window)

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

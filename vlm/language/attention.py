"""Grouped-query attention (arXiv:2305.13245) with rotary positions (arXiv:2104.09864).

B batch, T tokens, S tokens attended to, D width, H query heads, G key-value heads, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.config import LanguageConfig
from vlm.language.kv_cache import KVCache


class Rotary(nn.Module):
    """Cosines and sines `[B, 1, T, K]` of each position; the two halves of a head are the rotated pairs."""

    def __init__(self, head_width: int, theta: float):
        super().__init__()
        self.head_width, self.theta = head_width, theta

    def forward(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # Computed here in float32, not kept as a buffer: casting a model to bfloat16 would spoil the frequencies.
        exponents = torch.arange(0, self.head_width, 2, device=positions_BT.device).float() / self.head_width
        angles = positions_BT[:, None, :, None].float() * self.theta**-exponents
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BHTK: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos + torch.cat([-second, first], dim=-1) * sin


class GroupedQueryAttention(nn.Module):
    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        self.layer, self.head_width = layer, cfg.head_width
        self.q_proj = nn.Linear(cfg.width, cfg.heads * cfg.head_width, bias=False)
        self.k_proj = nn.Linear(cfg.width, cfg.kv_heads * cfg.head_width, bias=False)
        self.v_proj = nn.Linear(cfg.width, cfg.kv_heads * cfg.head_width, bias=False)
        self.o_proj = nn.Linear(cfg.heads * cfg.head_width, cfg.width, bias=False)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BTS: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """`mask_BTS` is true where a token may look; `None` means causal."""
        q_BHTK = rotate(self._heads(self.q_proj(x_BTD)), rotary)
        k_BGSK = rotate(self._heads(self.k_proj(x_BTD)), rotary)
        v_BGSK = self._heads(self.v_proj(x_BTD))
        if cache is not None:
            k_BGSK, v_BGSK = cache.append(self.layer, k_BGSK, v_BGSK)
        if torch.is_grad_enabled() and q_BHTK.device.type == "cpu":
            out_BHTK = plain_attention(q_BHTK, k_BGSK, v_BGSK, mask_BTS)
        else:
            mask = None if mask_BTS is None else mask_BTS[:, None]
            out_BHTK = F.scaled_dot_product_attention(
                q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, is_causal=mask is None, enable_gqa=True
            )
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2))

    def _heads(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


def plain_attention(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask_BTS: Tensor | None) -> Tensor:
    """Softmax attention written out, `[B, H, T, K]`.

    Also the training path on a CPU, where the backward pass of torch's fused kernel is the slowest part of a step
    (half of it, at 16 sequences of 107 tokens).
    """
    groups, tokens, width = k_BGSK.shape[1], q_BHTK.shape[2], q_BHTK.shape[3]
    # Query heads of a group are stacked along T: one product a group, keys and values not repeated.
    q_BGRK = (q_BHTK * width**-0.5).unflatten(1, (groups, -1)).flatten(2, 3)
    scores = (q_BGRK @ k_BGSK.transpose(-1, -2)).unflatten(2, (-1, tokens))
    if mask_BTS is None:
        mask_BTS = torch.ones(1, tokens, k_BGSK.shape[2], dtype=torch.bool, device=q_BHTK.device).tril()
    hidden = torch.zeros_like(mask_BTS, dtype=scores.dtype).masked_fill_(~mask_BTS, torch.finfo(scores.dtype).min)
    # In place: neither the product nor the softmax needs the scores without the mask for its gradient.
    scores += hidden[:, None, None]
    out_BGRK = scores.softmax(dim=-1).flatten(2, 3) @ v_BGSK
    return out_BGRK.unflatten(2, (-1, tokens)).flatten(1, 2)

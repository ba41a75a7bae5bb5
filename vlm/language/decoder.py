"""The decoder: embeddings, pre-norm layers of attention and feed-forward (dense or mixture), logits.

B batch, T tokens, S tokens attended to, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.language.attention import GroupedQueryAttention, Rotary
from vlm.language.config import LanguageConfig
from vlm.language.kv_cache import KVCache
from vlm.language.moe import MixtureOfExperts, Router, SwiGLU


class DecoderLayer(nn.Module):
    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        mixture = cfg.moe is not None and cfg.moe.is_mixture(layer)
        self.attention_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.attention = GroupedQueryAttention(cfg, layer)
        self.ffn_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.ffn = MixtureOfExperts(cfg) if mixture else SwiGLU(cfg.width, cfg.ffn_width)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BTS: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary, mask_BTS, cache)
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))


class LanguageModel(nn.Module):
    """Tokens in, logits out; or embeddings in, so that pictures can stand among the words."""

    def __init__(self, cfg: LanguageConfig):
        super().__init__()
        self.cfg = cfg
        self.embedding = nn.Embedding(cfg.vocab_size, cfg.width)
        self.rotary = Rotary(cfg.head_width, cfg.rope_theta)
        self.layers = nn.ModuleList(DecoderLayer(cfg, layer) for layer in range(cfg.layers))
        self.norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.lm_head = nn.Linear(cfg.width, cfg.vocab_size, bias=False)
        if cfg.tied_embeddings:
            self.lm_head.weight = self.embedding.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits `[B, T, V]` of causal language modelling."""
        return self.logits(self.hidden(self.embedding(tokens_BT)))

    def hidden(
        self,
        x_BTD: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The last layer's normalised states `[B, T, D]` for input embeddings `x_BTD`.

        `positions_BT` default to 0..T-1 (after what the cache holds); `mask_BTS` is true where a token may look, at the
        cache's tokens and the new ones, and defaults to causal.
        """
        tokens, past = x_BTD.shape[1], cache.length if cache is not None else 0
        if positions_BT is None:
            positions_BT = torch.arange(past, past + tokens, device=x_BTD.device)[None]
        if mask_BTS is None and past:
            mask_BTS = causal_mask(tokens, past, x_BTD.device)
        rotary = self.rotary(positions_BT, x_BTD.dtype)
        for layer in self.layers:
            x_BTD = layer(x_BTD, rotary, mask_BTS, cache)
        if cache is not None:
            cache.advance(tokens)
        return self.norm(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        return self.lm_head(x_BTD)

    def routers(self) -> list[Router]:
        return [module for module in self.modules() if isinstance(module, Router)]


def causal_mask(tokens: int, past: int, device: torch.device) -> Tensor:
    """`[1, T, past + T]`, true where a new token may look."""
    new = torch.arange(past, past + tokens, device=device)
    return (torch.arange(past + tokens, device=device)[None] <= new[:, None])[None]

"""The decoder: embeddings, pre-norm layers of attention and feed-forward (dense or mixture), logits.

B batch, T tokens, S tokens attended to, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.language.config import LanguageConfig
from vlm.language.kv_cache import KVCache
from vlm.language.moe import MixtureOfExperts, Router, SwiGLU
from vlm.language.rotary import Rotary


class DecoderLayer(nn.Module):
    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        self.attention_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.attention = cfg.attention.build(cfg, layer)
        self.ffn_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        dense = not cfg.is_mixture(layer)
        self.ffn = SwiGLU(cfg.width, cfg.ffn_width, bias=cfg.ffn_bias) if dense else MixtureOfExperts(cfg)

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
        self.rotary = Rotary(cfg.attention.rotary_width(cfg), cfg.rope_theta, cfg.rope)
        self.layers = nn.ModuleList(DecoderLayer(cfg, layer) for layer in range(cfg.layers))
        self.norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.lm_head = nn.Linear(cfg.width, cfg.vocab_size, bias=cfg.head_bias)
        if cfg.tied_embeddings:
            self.lm_head.weight = self.embedding.weight

    def forward(self, tokens_BT: Tensor, real_BS: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits `[B, T, V]` of causal language modelling.

        `real_BS` is false where a batch is padded, left or right, at the cache's tokens and the new ones; positions
        count real tokens only. The logits of padding mean nothing.
        """
        positions_BT = mask_BTS = None
        if real_BS is not None:
            positions_BT, mask_BTS = padded(real_BS, tokens_BT.shape[1])
        hidden = self.hidden(self.embedding(tokens_BT), positions_BT=positions_BT, mask_BTS=mask_BTS, cache=cache)
        return self.logits(hidden)

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
        masks: dict[int | None, Tensor | None] = {None: mask_BTS}
        if self.cfg.window is not None:
            near = window_mask(tokens, past, self.cfg.window, x_BTD.device)
            masks[self.cfg.window] = near if mask_BTS is None else near & mask_BTS
        for number, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, rotary, masks[self.cfg.window_of(number)], cache)
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


def window_mask(tokens: int, past: int, window: int, device: torch.device) -> Tensor:
    """`causal_mask` without what lies `window` tokens back or further."""
    causal = causal_mask(tokens, past, device)
    return causal & ~causal.tril(past - window)


def padded(real_BS: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Positions `[B, T]` and mask `[B, T, S]` of the last `tokens` of padded sequences."""
    positions_BS = (real_BS.long().cumsum(1) - 1).clamp(min=0)
    past = real_BS.shape[1] - tokens
    causal = causal_mask(tokens, past, real_BS.device)
    # A padding row looks at itself, so that its softmax is defined; nobody looks at it.
    own = causal & ~causal.tril(past - 1)
    return positions_BS[:, past:], (real_BS.bool()[:, None] & causal) | own

"""Multi-head latent attention (MLA; DeepSeek-V2, arXiv:2405.04434, section 2.1 and appendix C).

Keys and values of all heads are made of one latent vector a token, which is all that is cached, beside one rotated
key that the heads share. Two forms compute the same:
- expanded: make every head's keys and values, then attend as usual. For training and for long chunks.
- absorbed: multiply the queries by the keys' matrix instead and attend to the latents themselves, then multiply the
  outcome by the values' matrix. For decoding, where making keys and values of the whole past would dominate.

B batch, T tokens, S tokens attended to, D width, H heads, N head width without position, P rotated width, V value
width, L latent width of keys and values, J index key width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vlm.language.attention import attend
from vlm.language.config import LanguageConfig, LatentConfig
from vlm.language.kv_cache import KVCache
from vlm.language.rotary import rotate
from vlm.language.sparse_attention import LightningIndexer, top_token_mask


class LatentAttention(nn.Module):
    form: Literal["auto", "absorbed", "expanded"] = "auto"
    """`auto` takes the form of fewer multiplications while decoding, and the expanded one without a cache."""

    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        options = cfg.attention
        assert isinstance(options, LatentConfig)
        self.layer, self.heads, self.interleaved = layer, cfg.heads, cfg.rope.interleaved
        self.L, self.P, self.V = options.kv_rank, options.rope_width, options.value_width
        self.N = cfg.head_width - self.P
        self.scale = cfg.head_width**-0.5 * cfg.rope.score_scale
        if options.q_rank is None:
            self.q_proj = nn.Linear(cfg.width, cfg.heads * cfg.head_width, bias=False)
        else:
            self.q_down = nn.Linear(cfg.width, options.q_rank, bias=options.bias)
            self.q_norm = nn.RMSNorm(options.q_rank, eps=options.latent_norm_eps)
            self.q_up = nn.Linear(options.q_rank, cfg.heads * cfg.head_width, bias=False)
        self.q_rank = options.q_rank
        self.kv_down = nn.Linear(cfg.width, self.L + self.P, bias=options.bias)
        self.kv_norm = nn.RMSNorm(self.L, eps=options.latent_norm_eps)
        self.kv_up = nn.Linear(self.L, cfg.heads * (self.N + self.V), bias=False)
        self.o_proj = nn.Linear(cfg.heads * self.V, cfg.width, bias=options.bias)
        self.indexer: LightningIndexer | None = None
        if options.indexer is not None and options.q_rank is not None:
            index = options.indexer
            self.top_k = index.top_k
            self.indexer = LightningIndexer(cfg.width, options.q_rank, index.heads, index.head_width, self.interleaved)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BTS: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """`mask_BTS` is true where a token may look; `None` means causal."""
        latent_BTQ = x_BTD if self.q_rank is None else self.q_norm(self.q_down(x_BTD))
        q_BTC = self.q_proj(latent_BTQ) if self.q_rank is None else self.q_up(latent_BTQ)
        q_BHTN, q_BHTP = q_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2).split([self.N, self.P], dim=-1)
        q_BHTP = rotate(q_BHTP, rotary, self.interleaved)

        latent_BTL, k_BTP = self.kv_down(x_BTD).split([self.L, self.P], dim=-1)
        k_B1TP = rotate(k_BTP[:, None], rotary, self.interleaved)
        kept_B1SC = torch.cat([self.kv_norm(latent_BTL)[:, None], k_B1TP], dim=-1)
        if self.indexer is not None:
            index_B1SJ = self.indexer.keys(x_BTD, rotary)[:, None]
            if cache is not None:
                kept_B1SC, index_B1SJ = cache.append(self.layer, kept_B1SC, index_B1SJ)
            if self.top_k < index_B1SJ.shape[2]:
                if mask_BTS is None:
                    mask_BTS = x_BTD.new_ones(1, x_BTD.shape[1], x_BTD.shape[1], dtype=torch.bool).tril()
                scores_BTS = self.indexer(x_BTD, latent_BTQ, index_B1SJ[:, 0], rotary)
                mask_BTS = top_token_mask(scores_BTS, self.top_k, mask_BTS)
        elif cache is not None:
            (kept_B1SC,) = cache.append(self.layer, kept_B1SC)

        form = self._absorbed if self._absorbs(x_BTD.shape[1], cache) else self._expanded
        out_BHTV = form(q_BHTN, q_BHTP, kept_B1SC, mask_BTS)
        return self.o_proj(out_BHTV.transpose(1, 2).flatten(2))

    def _expanded(self, q_BHTN: Tensor, q_BHTP: Tensor, kept_B1SC: Tensor, mask_BTS: Tensor | None) -> Tensor:
        latent_B1SL, k_B1SP = kept_B1SC.split([self.L, self.P], dim=-1)
        made_BHSC = self.kv_up(latent_B1SL[:, 0]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_BHSN, v_BHSV = made_BHSC.split([self.N, self.V], dim=-1)
        k_BHSK = torch.cat([k_BHSN, k_B1SP.expand(-1, self.heads, -1, -1)], dim=-1)
        return attend(torch.cat([q_BHTN, q_BHTP], dim=-1), k_BHSK, v_BHSV, mask_BTS, self.scale)

    def _absorbed(self, q_BHTN: Tensor, q_BHTP: Tensor, kept_B1SC: Tensor, mask_BTS: Tensor | None) -> Tensor:
        """`q . (W_k c) = (W_k^T q) . c`, and `sum p (W_v c) = W_v sum p c`: one key-value head of width L + P."""
        keys_HNL, values_HVL = self.kv_up.weight.unflatten(0, (self.heads, -1)).split([self.N, self.V], dim=1)
        q_BHTC = torch.cat([q_BHTN @ keys_HNL, q_BHTP], dim=-1)
        out_BHTL = attend(q_BHTC, kept_B1SC, kept_B1SC[..., : self.L], mask_BTS, self.scale)
        return out_BHTL @ values_HVL.transpose(1, 2)

    def _absorbs(self, tokens: int, cache: KVCache | None) -> bool:
        # Multiplications a head and cached token: making a key and a value, against the wider products of T queries.
        making, wider = self.L * (self.N + self.V), tokens * (2 * self.L - self.N - self.V)
        fewer = cache is not None and wider < making
        # A low-rank adapter around kv_up is more than its weight.
        return self.form == "absorbed" or (self.form == "auto" and fewer and type(self.kv_up) is nn.Linear)

"""Multi-head latent attention (MLA; DeepSeek-V2, arXiv:2405.04434, section 2.1 and appendix C).

Keys and values of all heads are made of one latent vector a token, which is all that is cached, beside one rotated
key that the heads share. Two forms compute the same:
- expanded: make every head's keys and values, then attend as usual. For training and for long chunks.
- absorbed: multiply the queries by the keys' matrix instead and attend to the latents themselves, then multiply the
  outcome by the values' matrix. For decoding, where making keys and values of the whole past would dominate.

Where few tokens are looked at - an indexer's choice, or blocks - the absorbed form attends to their latents alone.

B batch, T tokens, S tokens attended to, D width, H heads, N head width without position, P rotated width, V value
width, L latent width of keys and values, J index key width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.attention.attend import attend
from vlm.language.attention.gathered import HeavyBlocks, attend_blocks, attend_chosen, gathering_pays
from vlm.language.attention.kv_cache import Apart, KVCache, block_means, each, whole
from vlm.language.attention.masks import shown_mask
from vlm.language.attention.rotary import rotate
from vlm.language.attention.sparse import LightningIndexer, top_token_mask
from vlm.language.config.attention import LatentConfig

if TYPE_CHECKING:
    from vlm.language.config import LanguageConfig

Attend = Callable[..., Tensor]
"""Attention of queries to keys and values."""
EXPANDED_NUMBERS = 2**24
"""Keys and values of so many heads at a time that they are about so many numbers."""


class LatentAttention(nn.Module):
    form: Literal["auto", "absorbed", "expanded"] = "auto"
    """`auto` takes the form of fewer multiplications behind a cache, and the expanded one without."""
    blocks: HeavyBlocks | None = None
    """Look at the heaviest blocks of keys alone, in a model that was not trained for it; always absorbed."""

    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        options = cfg.attention
        assert isinstance(options, LatentConfig)
        self.layer, self.heads, self.interleaved = layer, cfg.heads, cfg.rope.interleaved
        self.window = cfg.window_of(layer)
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
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BTS: Tensor | None, cache: KVCache | Apart | None
    ) -> Tensor:
        """`mask_BTS` is true where a token may look; `None` means causal."""
        latent_BTQ = x_BTD if self.q_rank is None else self.q_norm(self.q_down(x_BTD))
        q_BTC = self.q_proj(latent_BTQ) if self.q_rank is None else self.q_up(latent_BTQ)
        q_BHTN, q_BHTP = q_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2).split([self.N, self.P], dim=-1)
        q_BHTP = rotate(q_BHTP, rotary, self.interleaved)

        latent_BTL, k_BTP = self.kv_down(x_BTD).split([self.L, self.P], dim=-1)
        k_B1TP = rotate(k_BTP[:, None], rotary, self.interleaved)
        kept_B1SC = torch.cat([self.kv_norm(latent_BTL)[:, None], k_B1TP], dim=-1)
        new = [kept_B1SC] if self.indexer is None else [kept_B1SC, self.indexer.keys(x_BTD, rotary)[:, None]]
        parts = []
        for part, one in each(cache):
            cos, sin = (angles[:, :, part] for angles in rotary)
            index = (x_BTD[:, part], latent_BTQ[:, part], (cos, sin))
            kept = [tensor[:, :, part] for tensor in new]
            parts.append(self._seen(q_BHTN[:, :, part], q_BHTP[:, :, part], kept, index, mask_BTS, one))
        return self.o_proj(whole(parts, x_BTD.shape[1]).transpose(1, 2).flatten(2))

    def _seen(
        self, q_BHTN: Tensor, q_BHTP: Tensor, kept: list[Tensor], queries: tuple[Tensor, Tensor, tuple[Tensor, Tensor]],
        mask_BTS: Tensor | None, cache: KVCache | None,
    ) -> Tensor:  # fmt: skip
        """Attention `[B, H, T, V]` to what is `kept`: latents and keys, index keys; the indexer asks with `queries`."""
        x_BTD, latent_BTQ, rotary = queries
        kept_B1SC, *index_B1SJ = kept if cache is None else cache.append(self.layer, *kept)
        tokens, keys = x_BTD.shape[1], kept_B1SC.shape[2]
        look = partial(attend, mask_BTS=mask_BTS, window=self.window)
        absorbs = self._absorbs(tokens, cache)
        if self.indexer is not None and self.top_k < keys:
            index = (x_BTD, latent_BTQ, index_B1SJ[0][:, 0], rotary)
            if self.form == "auto" and self._plain() and gathering_pays(tokens, keys, self.top_k, self.heads):
                chosen_BTk, there_BTk = self.indexer.choose(*index, self.top_k, mask_BTS)
                look, absorbs = partial(attend_chosen, chosen_BTk=chosen_BTk, there_BTk=there_BTk), True
            else:
                shown_BTS = shown_mask(mask_BTS, tokens, keys, None, x_BTD.device)
                look = partial(attend, mask_BTS=top_token_mask(self.indexer(*index), self.top_k, shown_BTS))
        elif self.blocks is not None and self.window is None:
            means = block_means if cache is None else partial(cache.block_means, self.layer)
            look, absorbs = partial(attend_blocks, blocks=self.blocks, mask_BTS=mask_BTS, means=means), True
        return (self._absorbed if absorbs else self._expanded)(q_BHTN, q_BHTP, kept_B1SC, look)

    def _expanded(self, q_BHTN: Tensor, q_BHTP: Tensor, kept_B1SC: Tensor, look: Attend) -> Tensor:
        """Some heads at a time behind a long past, where all heads' keys and values would be many times the cache."""
        latent_BSL, k_B1SP = kept_B1SC[:, 0, :, : self.L], kept_B1SC[..., self.L :]
        each = self.N + self.V
        heads = max(1, EXPANDED_NUMBERS // (len(latent_BSL) * latent_BSL.shape[1] * (each + self.P)))
        made: Iterable[Tensor]
        if heads < self.heads and self._plain():
            made = (F.linear(latent_BSL, weight) for weight in self.kv_up.weight.split(heads * each))
        else:
            made, heads = [self.kv_up(latent_BSL)], self.heads
        parts = []
        for q_BhTK, made_BSC in zip(torch.cat([q_BHTN, q_BHTP], dim=-1).split(heads, dim=1), made, strict=True):
            k_BhSN, v_BhSV = made_BSC.unflatten(-1, (-1, each)).transpose(1, 2).split([self.N, self.V], dim=-1)
            k_BhSK = torch.cat([k_BhSN, k_B1SP.expand(-1, k_BhSN.shape[1], -1, -1)], dim=-1)
            parts.append(look(q_BhTK, k_BhSK, v_BhSV, scale=self.scale))
        return torch.cat(parts, dim=1)

    def _absorbed(self, q_BHTN: Tensor, q_BHTP: Tensor, kept_B1SC: Tensor, look: Attend) -> Tensor:
        """`q . (W_k c) = (W_k^T q) . c`, and `sum p (W_v c) = W_v sum p c`: one key-value head of width L + P."""
        if not self._plain():
            raise ValueError("the absorbed form of latent attention knows no adapter on kv_up; merge it first")
        keys_HNL, values_HVL = self.kv_up.weight.unflatten(0, (self.heads, -1)).split([self.N, self.V], dim=1)
        q_BHTC = torch.cat([q_BHTN @ keys_HNL, q_BHTP], dim=-1)
        # The values are the keys' first L numbers: handed in whole, they need no copy of the cache.
        out_BHTL = look(q_BHTC, kept_B1SC, kept_B1SC, scale=self.scale)[..., : self.L]
        return out_BHTL @ values_HVL.transpose(1, 2)

    def _absorbs(self, tokens: int, cache: KVCache | None) -> bool:
        # Multiplications a head and cached token: making a key and a value, against the wider products of T queries.
        making, wider = self.L * (self.N + self.V), tokens * (2 * self.L - self.N - self.V)
        fewer = cache is not None and wider < making
        return self.form == "absorbed" or (self.form == "auto" and fewer and self._plain())

    def _plain(self) -> bool:
        """A low-rank adapter around kv_up is more than its weight."""
        return type(self.kv_up) is nn.Linear

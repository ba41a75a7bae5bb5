"""The decoder: embeddings, pre-norm layers of attention and feed-forward (dense or mixture), logits.

B batch, T tokens, S tokens attended to, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.language.attention.build import build_attention
from vlm.language.attention.kv_cache import Apart, KVCache
from vlm.language.attention.masks import padded, padded_mask, positions
from vlm.language.attention.rotary import Rotary
from vlm.language.config import LanguageConfig
from vlm.language.mixture.moe import MixtureOfExperts, Router, SwiGLU
from vlm.language.multi_token import MultiTokenPrediction

PREFILL_CHUNK = 1024
"""Tokens of a prompt that are read together: enough for large products, few enough to hold."""


class DecoderLayer(nn.Module):
    def __init__(self, cfg: LanguageConfig, layer: int):
        super().__init__()
        self.attention_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.attention = build_attention(cfg, layer)
        self.ffn_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        dense = not cfg.is_mixture(layer)
        self.ffn = SwiGLU(cfg.width, cfg.ffn_width, bias=cfg.ffn_bias) if dense else MixtureOfExperts(cfg)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask_BTS: Tensor | None,
        cache: KVCache | Apart | None,
        real_BT: Tensor | None = None,
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary, mask_BTS, cache)
        normed_BTD = self.ffn_norm(x_BTD)
        if isinstance(self.ffn, MixtureOfExperts):
            return x_BTD + self.ffn(normed_BTD, real_BT, cache.sizes if isinstance(cache, Apart) else ())
        return x_BTD + self.ffn(normed_BTD)


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
        self.multi_token: MultiTokenPrediction | None = None
        if cfg.multi_token:
            blocks = [DecoderLayer(cfg, cfg.layers + depth) for depth in range(cfg.multi_token)]
            self.multi_token = MultiTokenPrediction(cfg.width, blocks, cfg.norm_eps)

    def forward(self, tokens_BT: Tensor, real_BS: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits `[B, T, V]` of causal language modelling.

        `real_BS` is false where a batch is padded, left or right, at the cache's tokens and the new ones; positions
        count real tokens only. The logits of padding mean nothing.
        """
        positions_BT = mask_BTS = real_BT = None
        if real_BS is not None:
            positions_BT, mask_BTS = padded(real_BS, tokens_BT.shape[1])
            real_BT = real_BS[:, -tokens_BT.shape[1] :].bool()
        x_BTD = self.embedding(tokens_BT)
        return self.logits(
            self.hidden(x_BTD, positions_BT=positions_BT, mask_BTS=mask_BTS, real_BT=real_BT, cache=cache)
        )

    def hidden(
        self,
        x_BTD: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
        real_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The last layer's normalised states `[B, T, D]` for input embeddings `x_BTD`.

        `positions_BT` default to 0..T-1 (after what the cache holds); `mask_BTS` is true where a token may look, at the
        cache's tokens and the new ones, and defaults to causal. `real_BT` is false at tokens that the
        routers' loads and losses should not count.
        """
        tokens, past = x_BTD.shape[1], cache.length if cache is not None else 0
        if positions_BT is None:
            positions_BT = torch.arange(past, past + tokens, device=x_BTD.device)[None]
        return self._through(x_BTD, self.rotary(positions_BT, x_BTD.dtype), mask_BTS, cache, real_BT)

    def prefill(
        self,
        x_BTD: Tensor,
        cache: KVCache,
        *,
        real_BS: Tensor | None = None,
        chunk: int = PREFILL_CHUNK,
        whole: int | None = None,
        every: bool = False,
    ) -> Tensor:
        """Read prompts into the cache, `chunk` tokens at a time; the last token's normalised state `[B, D]`, or `every`
        token's `[B, T, D]`.

        `real_BS` is false where a batch is padded, on the left, at the cache's tokens and the new ones. Memory grows
        with T and not with its square; the states are those of `hidden`. Of prompts that are read a part a call,
        `whole` is how many tokens they will have.
        """
        tokens, past = x_BTD.shape[1], cache.length
        # Of all positions at once: those of dynamic kinds depend on the longest.
        if real_BS is None or bool(real_BS.all()):
            real_BS, positions_BT = None, torch.arange(past, max(past + tokens, whole or 0), device=x_BTD.device)[None]
        else:
            positions_BT = positions(real_BS)[:, past:]
        rotary = self.rotary(positions_BT, x_BTD.dtype)
        states: list[Tensor] = []
        for begin in range(0, tokens, chunk):
            part = slice(begin, min(begin + chunk, tokens))
            mask_BTS = None if real_BS is None else padded_mask(real_BS[:, : past + part.stop], part.stop - begin)
            cos, sin = (angles[:, :, part] for angles in rotary)
            hidden_BTD = self._through(x_BTD[:, part], (cos, sin), mask_BTS, cache)
            states += [hidden_BTD] if every else []
        return torch.cat(states, dim=1) if every else hidden_BTD[:, -1]

    def step(self, x_TD: Tensor, caches: Apart) -> Tensor:
        """New tokens of several sequences, each at its own place: normalised states `[T, D]` of their embeddings.

        With as many rows in every call - those beyond the sequences' tokens are filler - a sequence's states are the
        same whatever its neighbours are, where the machine's products are (`vlm.engine.rows`).
        """
        rotary, real_1T = self._placed(x_TD, caches)
        return self._through(x_TD[None], rotary, None, caches, real_1T)[0]

    def multi_token_step(self, depth: int, hidden_TD: Tensor, embedded_TD: Tensor, caches: Apart) -> Tensor:
        """The same of the head of one depth, from 1, with caches of its layer: states `[T, D]`, for `logits` and the
        next depth. `hidden_TD` are the states of the depth before, `embedded_TD` the tokens `depth` behind each."""
        assert self.multi_token is not None
        rotary, real_1T = self._placed(hidden_TD, caches)
        head = self.multi_token.heads[depth - 1]
        states_1TD = head(hidden_TD[None], embedded_TD[None], rotary, None, caches, real_1T)
        caches.advance(len(hidden_TD))
        return states_1TD[0]

    def _placed(self, x_TD: Tensor, caches: Apart) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The rotary angles of new tokens behind what each cache holds, and which of them are no filler, `[1, T]`."""
        places = caches.places
        places_T = torch.zeros(len(x_TD), dtype=torch.long, device=x_TD.device)
        places_T[: len(places)] = torch.tensor(places, device=x_TD.device)
        real_1T = (torch.arange(len(x_TD), device=x_TD.device) < len(places))[None]
        if self.cfg.rope.fixed(int(places_T.max()) + 1):
            return self.rotary(places_T[None], x_TD.dtype), real_1T
        # Each by its own length.
        cos, sin = zip(*(self.rotary(place_1[None], x_TD.dtype) for place_1 in places_T.split(1)), strict=True)
        return (torch.cat(cos, dim=2), torch.cat(sin, dim=2)), real_1T

    def _through(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask_BTS: Tensor | None,
        cache: KVCache | Apart | None,
        real_BT: Tensor | None = None,
    ) -> Tensor:
        for layer in self.layers:
            x_BTD = layer(x_BTD, rotary, mask_BTS, cache, real_BT)
        if cache is not None:
            cache.advance(x_BTD.shape[1])
        return self.norm(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        return self.lm_head(x_BTD)

    def multi_token_logits(
        self,
        hidden_BTD: Tensor,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
        real_BT: Tensor | None = None,
    ) -> list[Tensor]:
        """Logits `[B, T, V]` of each depth d, at token t of token t + 1 + d; none of a model without such heads.

        `hidden_BTD` is what `hidden` gave for `tokens_BT` with the same positions and mask.
        """
        if self.multi_token is None:
            return []
        tokens = tokens_BT.shape[1]
        if positions_BT is None:
            positions_BT = torch.arange(tokens, device=tokens_BT.device)[None]
        context = (self.rotary(positions_BT, hidden_BTD.dtype), mask_BTS, None, real_BT)
        return self.multi_token(hidden_BTD, tokens_BT, self.embedding, self.logits, *context)

    def routers(self) -> list[Router]:
        return [module for module in self.modules() if isinstance(module, Router)]

    def router_losses(self) -> dict[str, Tensor]:
        """The auxiliary losses of the last forward in training, by kind, weighted and summed over the layers.

        Add them to the model's loss. They are handed over: the routers keep none.
        """
        totals: dict[str, Tensor] = {}
        for router in self.routers():
            for kind, loss in router.losses.items():
                totals[kind] = totals[kind] + loss if kind in totals else loss
            router.losses = {}
        return totals

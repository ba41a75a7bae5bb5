"""Guesses of a model's own multi-token heads (DeepSeek-V3, arXiv:2412.19437, section 2.2; `language/multi_token.py`).

The head of depth d reads, at a token, the state of the depth before and the d-th token behind it, and says the one
behind that. So a head is always one token later than the one before it: at the last places it reads guesses of the
heads before, which it forgets again by setting its cache's length back.

T tokens, t some of them, D width, V vocabulary, N depths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.engine.drafts.drafter import Drafter
from vlm.engine.drafts.model import guess
from vlm.engine.job import Reply
from vlm.language.attention.kv_cache import Apart, KVCache
from vlm.language.decoder import LanguageModel


@dataclass
class Ahead:
    """What the heads have of a prompt and its reply, from place `begin` on: what a head looks at begins there, too."""

    begin: int
    end: int
    """The place behind the last state of the trunk."""
    caches: list[KVCache]
    """Of each depth."""
    unread: list[list[Tensor]]
    """States `[t, D]` of the depth before that each depth has not read, the trunk's first."""


class Heads(Drafter):
    """States come as the model reads; of chunks that were found read there are none, so that heads begin behind them,
    and behind the last picture, whose tokens are no words."""

    name = "heads"

    def __init__(self, language: LanguageModel, sizes: tuple[int, ...], most: int):
        """`sizes` are numbers of rows that experts are multiplied in."""
        self.language, self._sizes = language, sizes
        self.most = min(most, language.cfg.multi_token)

    def bytes_of(self, tokens: int) -> int:
        return bytes_of_heads(self.language, tokens)

    def saw(self, reply: Reply, begin: int, states_TD: Tensor) -> None:
        last = max((item.places[-1] for item in reply.job.shown if item.places), default=0)
        begin, states_TD = max(begin, last), states_TD[max(0, last - begin) :]
        if not len(states_TD):
            return
        ahead: Ahead | None = reply.drafts.get(self.name)
        if ahead is None or ahead.end != begin:
            request = reply.job.request
            room = len(request.prompt.ids) + request.max_tokens - begin
            caches = [self._cache(depth, room) for depth in self._depths]
            ahead = reply.drafts[self.name] = Ahead(begin, begin, caches, [[] for _ in caches])
        ahead.end += len(states_TD)
        ahead.unread[0].append(states_TD)

    def catch_up(self, replies: Sequence[Reply]) -> list[Reply]:
        """Those whose states are known up to the last token but one, behind which the last stands."""
        return [
            reply for reply in replies
            if (ahead := reply.drafts.get(self.name)) is not None
            and ahead.unread[0] and ahead.end == len(reply.job.request.prompt.ids) + len(reply.tokens) - 1
        ]  # fmt: skip

    def draft(self, asked: Sequence[tuple[Reply, int]]) -> list[list[int]]:
        guesses: list[list[int]] = [[] for _ in asked]
        ids = [_ids(reply) for reply, _ in asked]
        going = [number for number, (_, most) in enumerate(asked) if most > 0]
        # What a depth gave at places whose next token is only guessed: the depth behind it reads it and forgets it.
        supposed: dict[int, Tensor] = {}
        for depth in self._depths:
            if not going:
                break
            aheads: list[Ahead] = [asked[number][0].drafts[self.name] for number in going]
            hidden, tokens = [], []
            for number, ahead in zip(going, aheads, strict=True):
                known_tD = torch.cat(ahead.unread[depth - 1])
                ahead.unread[depth - 1] = [known_tD]
                hidden_tD = known_tD if depth == 1 else torch.cat([known_tD, supposed[number]])
                hidden.append(hidden_tD)
                first = ahead.begin + ahead.caches[depth - 1].length + depth
                tokens += [*ids[number], *guesses[number]][first : first + len(hidden_tD)]
            out = self._read(depth, hidden, tokens, [ahead.caches[depth - 1] for ahead in aheads])
            logits_RV = self.language.logits(torch.stack([own_tD[-1] for own_tD in out]))
            for number, ahead, own_tD, logits_V in zip(going, aheads, out, logits_RV, strict=True):
                supposed[number] = self._kept(ahead, depth, own_tD, len(ids[number]))
                guesses[number].append(guess(logits_V, asked[number][0], guesses[number]))
            going = [number for number in going if len(guesses[number]) < asked[number][1]]
        return guesses

    def _kept(self, ahead: Ahead, depth: int, own_tD: Tensor, known: int) -> Tensor:
        """Forget what was read of guesses, where `known` tokens are none; the states there."""
        cache = ahead.caches[depth - 1]
        before = cache.length - len(own_tD)
        sure = max(0, known - depth - ahead.begin - before)  # of the places just read
        cache.length = before + sure
        (known_tD,) = ahead.unread[depth - 1]
        ahead.unread[depth - 1] = [known_tD[sure:]] if len(known_tD) > sure else []
        if depth < len(ahead.caches):
            ahead.unread[depth].append(own_tD[:sure])
        return own_tD[sure:]

    def _read(
        self, depth: int, hidden: list[Tensor], tokens: list[int], caches: list[KVCache]
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The states `[t, D]` of each reply in one pass."""
        embedded_TD = self.language.embedding(torch.tensor(tokens, device=hidden[0].device))
        counts = list(map(len, hidden))
        apart = Apart(caches, self._sizes, counts)
        return self.language.multi_token_step(depth, torch.cat(hidden), embedded_TD, apart).split(counts)

    @property
    def _depths(self) -> range:
        return range(1, self.language.cfg.multi_token + 1)

    def _cache(self, depth: int, room: int) -> KVCache:
        cfg = self.language.cfg
        layer = cfg.layers + depth - 1
        return KVCache(cfg, 1, room, like=self.language.embedding.weight, layers=range(layer, layer + 1))


def bytes_of_heads(language: LanguageModel, tokens: int) -> int:
    """What the heads of a model keep of a reply of so many tokens, at most."""
    cfg, itemsize = language.cfg, language.embedding.weight.element_size()
    kept = KVCache.bytes_of(cfg, tokens, itemsize, range(cfg.layers, cfg.layers + cfg.multi_token))
    return kept + cfg.multi_token * tokens * cfg.width * itemsize


def _ids(reply: Reply) -> list[int]:
    return [*reply.job.request.prompt.ids, *reply.tokens]

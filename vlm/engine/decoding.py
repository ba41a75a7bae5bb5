"""Decoding steps: the tokens that are fed, and those that are chosen.

A step has as many rows as the next of its sizes, and what the replies leave of them is filled with guesses (speculative
decoding, arXiv:2211.17192): tokens that came after the same ones before (`vlm.engine.speculation`). Each guess is fed
behind the last, in a row of its own, and is right where it is the token that is chosen anyway. So a reply is the same,
to the bit, whatever was guessed, sampled or not: a draw knows its place alone (`vlm.engine.sampling`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.engine.job import Reply
from vlm.engine.sampling import chosen
from vlm.engine.speculation import Drafts
from vlm.language.attention.kv_cache import Apart, KVCache
from vlm.language.steps import filled, tiles
from vlm.models.processor import Processor
from vlm.models.vision_language import VisionLanguageModel


@dataclass
class Fed:
    """A reply with what was read last of it: states `[D]` behind the last known token, and behind each guess."""

    reply: Reply
    states: list[Tensor]
    guesses: list[int]


class Decoding:
    """Of one model; `guesses` are those of a reply and a step at most."""

    def __init__(self, model: VisionLanguageModel, processor: Processor, sizes: tuple[int, ...], guesses: int):
        self.model, self.processor, self.sizes = model, processor, sizes
        # A window's cache moves as it fills, and cannot be set back.
        self.guesses = (
            guesses if all(w is None for w in map(model.language.cfg.window_of, range(_layers(model)))) else 0
        )
        self._slots = {processor.image_token, processor.video_token}
        self.guessed = self.right = 0
        """Tokens, so far."""

    def spare(self, replies: int) -> int:
        """Rows that so many replies leave of a step."""
        return sum(size for _, size in tiles(range(replies), self.sizes)) - replies

    def feed(self, replies: Sequence[Reply]) -> list[Fed]:
        """A token of each, and guesses in the rows that are left; of a reply that is read again its own tokens."""
        spare = self.spare(len(replies))
        feeds: list[tuple[Reply, list[int], list[int]]] = []
        for reply in replies:
            known = reply.tokens[reply.fed : reply.fed + 1 + min(spare, self.guesses)]
            whole = reply.fed + len(known) == len(reply.tokens)
            guesses = self._guesses(reply, spare - len(known) + 1) if whole else []
            spare -= len(known) - 1 + len(guesses)
            feeds.append((reply, known, guesses))
        states = iter(self._states([(reply, known + guesses) for reply, known, guesses in feeds]))
        fed = []
        for reply, known, guesses in feeds:
            mine = [next(states) for _ in known + guesses]
            reply.fed += len(known)
            assert reply.cache is not None
            reply.cache.length += len(known)
            fed.append(Fed(reply, mine[len(known) - 1 :], guesses))
        return fed

    def choose(self, fed: Sequence[Fed]) -> list[tuple[Reply, Exception]]:
        """The next tokens of each reply that is read to its end; those on which that failed."""
        choosing = [one for one in fed if one.reply.writing and one.reply.fed == len(one.reply.tokens)]
        states = [state_D for one in choosing for state_D in one.states]
        logits: list[Tensor] = []
        for tile, rows in tiles(states, self.sizes):
            logits += self.model.language.logits(filled(torch.stack(list(tile)), rows))[: len(tile)]
        failed, rest = [], iter(logits)
        for one in choosing:
            rows_V = [next(rest) for _ in one.states]
            try:
                if one.reply.finish is None:
                    self._take(one, rows_V)
            except Exception as error:
                failed.append((one.reply, error))
        return failed

    def _take(self, one: Fed, logits: Sequence[Tensor]) -> None:
        """Tokens as far as the guesses were right, and one more."""
        reply, request = one.reply, one.reply.job.request
        self.guessed += len(one.guesses)
        for logits_V, guess in zip(logits, [*one.guesses, None], strict=True):
            allowed = None if reply.followed is None else reply.followed.allowed()
            token = chosen(
                logits_V, request.sampling, reply.tokens, request.prompt.ids, len(reply.tokens), reply.choice,
                reply.seed, allowed,
            )  # fmt: skip
            reply.take(token, self.processor.stop_tokens)
            if reply.finish is not None or token.token != guess:
                break
            self.right += 1
            reply.fed += 1
            assert reply.cache is not None
            reply.cache.length += 1

    def _states(self, feeds: Sequence[tuple[Reply, list[int]]]) -> list[Tensor]:
        """`[D]` of each token, those of a reply one behind the other."""
        rows = []
        for reply, tokens in feeds:
            assert reply.cache is not None
            rows += [(token, _ahead(reply.cache, number)) for number, token in enumerate(tokens)]
        states: list[Tensor] = []
        for tile, size in tiles(rows, self.sizes):
            tokens_B = torch.tensor([token for token, _ in tile], device=self.model.device)
            x_BD = filled(self.model.language.embedding(tokens_B), size)
            states += self.model.language.step(x_BD, Apart([cache for _, cache in tile], self.sizes))[: len(tile)]
        return states

    def _guesses(self, reply: Reply, most: int) -> list[int]:
        left = reply.job.request.max_tokens - len(reply.tokens) - 1
        most = min(most, left, self.guesses)
        if most <= 0:
            return []
        if reply.drafts is None:
            reply.drafts, reply.drafted = Drafts(reply.job.request.prompt.ids), 0
        reply.drafts.extend(reply.tokens[reply.drafted :])
        reply.drafted = len(reply.tokens)
        found = reply.drafts.draft(most)
        return next((found[:place] for place, token in enumerate(found) if token in self._slots), found)


def _ahead(cache: KVCache, tokens: int) -> KVCache:
    """The same memory as it will be behind so many tokens more."""
    later = copy.copy(cache)
    later.length += tokens
    return later


def _layers(model: VisionLanguageModel) -> int:
    return model.language.cfg.layers

"""Decoding steps: the tokens that are fed, and those that are chosen.

A step has as many rows as the next of its sizes, and what the replies leave of them is filled with guesses (speculative
decoding, arXiv:2211.17192; `vlm.engine.drafts`). Each guess is fed behind the last, in a row of its own, and is right
where it is the token that is chosen anyway. So a reply is the same, to the bit, whatever was guessed, sampled or not: a
draw knows its place alone (`vlm.engine.sampling`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.engine.drafts.drafting import NONE, Drafting, Guesses
from vlm.engine.drafts.planner import total
from vlm.engine.job import Reply
from vlm.engine.sampling import chosen
from vlm.language.attention.kv_cache import Apart, KVCache
from vlm.language.steps import filled, tiles
from vlm.models.processor import Processor
from vlm.models.vision_language import VisionLanguageModel


@dataclass
class Fed:
    """A reply with what was read last of it: states `[D]` behind the last known token, and behind each guess."""

    reply: Reply
    states: list[Tensor]
    guesses: Guesses = NONE


class Decoding:
    """Of one model."""

    def __init__(
        self, model: VisionLanguageModel, processor: Processor, sizes: tuple[int, ...], drafting: Drafting
    ):  # fmt: skip
        self.model, self.processor, self.sizes, self.drafting = model, processor, sizes, drafting
        self._seconds, self._rows, self._replies = 0.0, 0, 0
        """Of the step that is not chosen for yet."""

    def feed(self, replies: Sequence[Reply]) -> list[Fed]:
        """A token of each, and guesses in the rows that are left; of a reply that is read again its own tokens."""
        if not replies:
            return []
        plan = self.drafting.planner.plan(len(replies))
        spare = plan.rows - len(replies)
        known: dict[Reply, list[int]] = {}
        for reply in replies:
            known[reply] = reply.tokens[reply.fed : reply.fed + 1 + min(spare, self.drafting.most)]
            spare -= len(known[reply]) - 1
        whole = [reply for reply in replies if reply.fed + len(known[reply]) == len(reply.tokens)]
        guesses = self.drafting.guesses(plan, whole, sum(map(len, known.values())))
        began = self.drafting.clock()
        feeds = [(reply, [*known[reply], *guesses.get(reply, NONE).tokens]) for reply in replies]
        states = iter(self._states(feeds))
        fed = []
        for reply, tokens in feeds:
            mine, count = [next(states) for _ in tokens], len(known[reply])
            self._saw(reply, mine[:count])
            reply.fed += count
            assert reply.cache is not None
            reply.cache.length += count
            fed.append(Fed(reply, mine[count - 1 :], guesses.get(reply, NONE)))
        self._rows, self._replies = total(sum(len(tokens) for _, tokens in feeds), self.sizes), len(replies)
        self._seconds = self.drafting.clock() - began
        return fed

    def choose(self, fed: Sequence[Fed]) -> list[tuple[Reply, Exception]]:
        """The next tokens of each reply that is read to its end; those on which that failed."""
        began = self.drafting.clock()
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
        if self._rows and len(choosing) == self._replies:  # else another step's prompts are among them
            self.drafting.planner.step.add(self._rows, self._seconds + self.drafting.clock() - began)
        self._rows = 0
        return failed

    def _take(self, one: Fed, logits: Sequence[Tensor]) -> None:
        """Tokens as far as the guesses were right, and one more."""
        reply, request, right, wrong = one.reply, one.reply.job.request, 0, False
        for logits_V, guess in zip(logits, [*one.guesses.tokens, None], strict=True):
            allowed = None if reply.followed is None else reply.followed.allowed()
            token = chosen(
                logits_V, request.sampling, reply.tokens, request.prompt.ids, len(reply.tokens), reply.choice,
                reply.seed, allowed,
            )  # fmt: skip
            reply.take(token, self.processor.stop_tokens)
            wrong = token.token != guess and guess is not None
            if reply.finish is not None or token.token != guess:
                break
            right += 1
        self.drafting.told(one.guesses, right, wrong)
        if reply.finish is None and right:
            self._saw(reply, one.states[1 : 1 + right])
            reply.fed += right
            assert reply.cache is not None
            reply.cache.length += right

    def _saw(self, reply: Reply, states: Sequence[Tensor]) -> None:
        """The states at the reply's tokens behind those that were fed before."""
        self.drafting.saw(reply, len(reply.job.request.prompt.ids) + reply.fed, states)

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


def _ahead(cache: KVCache, tokens: int) -> KVCache:
    """The same memory as it will be behind so many tokens more."""
    later = copy.copy(cache)
    later.length += tokens
    return later

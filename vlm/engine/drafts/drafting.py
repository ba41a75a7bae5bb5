"""Guesses of a step: who makes them, in which rows, and how many were right."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.engine.drafts.drafter import Drafter
from vlm.engine.drafts.heads import Heads
from vlm.engine.drafts.lookup import LookUp
from vlm.engine.drafts.model import DraftModel
from vlm.engine.drafts.planner import Plan, Planner, total
from vlm.engine.job import Reply
from vlm.engine.request import Drafted
from vlm.engine.settings import EngineSettings
from vlm.models.assembled import Assembled
from vlm.models.processor import Processor
from vlm.models.vision_language import VisionLanguageModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guesses:
    """Of one reply, and who made them."""

    by: str
    tokens: tuple[int, ...]


NONE = Guesses("", ())


class Drafting:
    """Of one model, whose engine asks. `counts` are the guesses so far, by drafter."""

    def __init__(
        self, drafters: Sequence[Drafter], sizes: tuple[int, ...], slots: frozenset[int] = frozenset(),
        clock: Callable[[], float] = time.perf_counter,
    ):  # fmt: skip
        """`sizes` are the rows of steps; tokens of `slots` are never written."""
        self._drafters = {drafter.name: drafter for drafter in drafters}
        self.planner = Planner(sizes, [(drafter.name, drafter.most) for drafter in drafters])
        self.counts = {name: Drafted() for name in self._drafters}
        self.clock, self._sizes, self._slots = clock, sizes, slots

    @property
    def most(self) -> int:
        """Guesses of a reply and a step."""
        return max((drafter.most for drafter in self._drafters.values()), default=0)

    def bytes_of(self, tokens: int) -> int:
        """What drafters keep of a reply of so many tokens."""
        return sum(drafter.bytes_of(tokens) for drafter in self._drafters.values())

    def saw(self, reply: Reply, begin: int, states: Tensor | Sequence[Tensor]) -> None:
        """The model's states `[D]` at the reply's tokens, its prompt's among them, from place `begin` on."""
        if Heads.name in self._drafters and len(states):
            self._drafters[Heads.name].saw(reply, begin, torch.stack(tuple(states)))

    def guesses(self, plan: Plan, replies: Sequence[Reply], fed: int) -> dict[Reply, Guesses]:
        """Of a step in which so many rows are `fed` beside them, for replies that are read up to their last token."""
        most = {reply: min(self.most, reply.job.request.max_tokens - len(reply.tokens) - 1) for reply in replies}
        wanted = [reply for reply in replies if most[reply] > 0]
        found: dict[Reply, Guesses] = {}
        rows = plan.rows - fed
        if plan.drafter not in ("", LookUp.name):
            found = self._drafted(plan.drafter, {reply: most[reply] for reply in wanted}, rows) if rows > 0 else {}
            fed += sum(len(one.tokens) for one in found.values())
            rows = total(fed, self._sizes) - fed  # what would be filler
        if LookUp.name in self._drafters and rows > 0:
            rest = {reply: most[reply] for reply in wanted if reply not in found}
            found |= self._looked_up(rest, rows)
        return found

    def told(self, guesses: Guesses, right: int, wrong: bool) -> None:
        """So many of them were right, and perhaps the next was wrong."""
        if guesses.tokens:
            self.counts[guesses.by] += Drafted(len(guesses.tokens), right)
            self.planner.told(guesses.by, right, wrong)

    def _drafted(self, name: str, most: dict[Reply, int], rows: int) -> dict[Reply, Guesses]:
        drafter = self._drafters[name]
        try:
            ready = drafter.catch_up(list(most))
            asked = list(zip(ready, shares(rows, [min(drafter.most, most[reply]) for reply in ready]), strict=True))
            asked = [(reply, share) for reply, share in asked if share]
            if not asked:
                return {}
            began = self.clock()
            made = drafter.draft(asked)
            rounds = max(share for _, share in asked)
            self.planner.draft[name].add(len(asked), (self.clock() - began) / rounds)
        except Exception:  # a guess is worth no reply
            log.exception("drafter %s failed, and is not asked any more", name)
            del self._drafters[name]
            self.planner.forget(name)
            return {}
        return self._noted(name, [reply for reply, _ in asked], made, [share for _, share in asked])

    def _looked_up(self, most: dict[Reply, int], rows: int) -> dict[Reply, Guesses]:
        """What was found is cut to the rows there are: looking costs nothing."""
        drafter = self._drafters[LookUp.name]
        made = drafter.draft([(reply, min(wish, drafter.most)) for reply, wish in most.items()])
        return self._noted(LookUp.name, list(most), made, shares(rows, list(map(len, made))))

    def _noted(
        self, name: str, replies: Sequence[Reply], made: Sequence[Sequence[int]], rows: Sequence[int]
    ) -> dict[Reply, Guesses]:  # fmt: skip
        """What was made for each, in the rows it has."""
        self.planner.asked(name, len(replies), sum(map(bool, made)))
        cut = [self._words(tokens[:most]) for tokens, most in zip(made, rows, strict=True)]
        return {reply: Guesses(name, tokens) for reply, tokens in zip(replies, cut, strict=True) if tokens}

    def _words(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Up to a picture's slot."""
        return tuple(tokens[: next((place for place, token in enumerate(tokens) if token in self._slots), len(tokens))])


def shares(rows: int, wishes: Sequence[int]) -> list[int]:
    """Rows for each, in turns: none has two more than another that wishes for more, and none more than it wishes."""
    given = [0] * len(wishes)
    while rows > 0 and (going := [number for number, wish in enumerate(wishes) if given[number] < wish]):
        for number in going[:rows]:
            given[number] += 1
        rows -= len(going)
    return given


def drafting(
    model: VisionLanguageModel, processor: Processor, settings: EngineSettings, sizes: tuple[int, ...],
    draft: Assembled | None,
) -> Drafting:  # fmt: skip
    """Of the drafters that there are: look-up, the model's own heads, and a draft model. Raises `BadInput` as
    `DraftModel`."""
    cfg, most = model.language.cfg, settings.guesses
    found: list[Drafter] = [LookUp(most)]
    if cfg.multi_token:
        found.append(Heads(model.language, sizes, most))
    if draft is not None:
        found.append(DraftModel(draft, processor, cfg.vocab_size, most))
    # A window's cache moves as it fills, and cannot be set back.
    if not most or any(cfg.window_of(layer) is not None for layer in range(cfg.layers + cfg.multi_token)):
        found = []
    slots = frozenset(slot for slot in (processor.image_token, processor.video_token) if slot is not None)
    chosen = [drafter for drafter in found if drafter.name in settings.drafters]
    return Drafting(chosen, sizes, slots)

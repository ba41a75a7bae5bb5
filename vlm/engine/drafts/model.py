"""Guesses of a small language model with the same tokens (speculative decoding, arXiv:2211.17192).

It reads the prompt's words - pictures it does not see, and their slots are left out - and then what the reply says,
in a cache of its own. Behind the last token it writes on by itself, drawing with the reply's own numbers: where it
thinks alike, it draws alike. What of that was wrong it forgets by setting its cache's length back.

V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlm.engine.drafts.drafter import Drafter
from vlm.engine.job import Reply
from vlm.engine.rows import arranged
from vlm.engine.sampling import likely
from vlm.errors import BadInput, VlmError
from vlm.language.attention.kv_cache import Apart, KVCache
from vlm.models.assembled import Assembled
from vlm.models.processor import Processor

AT_ONCE = 16
"""Tokens of a reply that are read together with its first guess."""
CATCH_UP = 512
"""Tokens of prompts that are read in one step, at most."""


@dataclass
class Read:
    """What the draft model has of a reply: `words` of the prompt and tokens, those in the cache `behind` the words."""

    words: list[int]
    cache: KVCache
    behind: list[int] = field(default_factory=list)
    sure: int = 0
    """Of these the first so many are the reply's."""

    def catch_up(self, said: Sequence[int]) -> None:
        """Forget what was guessed wrong, and the last token, behind which is guessed."""
        most = max(0, min(len(self.behind), len(said) - 1))
        while self.sure < most and self.behind[self.sure] == said[self.sure]:
            self.sure += 1
        del self.behind[self.sure :]
        self.cache.length = min(self.cache.length, len(self.words) + self.sure)

    def left(self, said: Sequence[int]) -> list[int]:
        """What is to be read, up to the reply's last token."""
        return [*self.words[self.cache.length :], *said[len(self.behind) :]]


class DraftModel(Drafter):
    name = "draft"

    def __init__(self, draft: Assembled, processor: Processor, width: int, most: int):
        """For a model with `processor` and logits of so many tokens. Raises `BadInput` for a draft model that has other
        tokens, and for one that cannot forget."""
        self.language, self.most, self._width = draft.model.language, most, width
        cfg = self.language.cfg
        _check_tokens(draft, processor)
        if any(cfg.window_of(layer) is not None for layer in range(cfg.layers)):
            raise BadInput(
                f"draft {draft.name}: expected a model that sees all of a text, got one with windowed layers"
            )
        self._slots = {processor.image_token, processor.video_token}
        self._sizes = arranged(self.language).steps

    def bytes_of(self, tokens: int) -> int:
        return KVCache.bytes_of(self.language.cfg, tokens, self.language.embedding.weight.element_size())

    def catch_up(self, replies: Sequence[Reply]) -> list[Reply]:
        ready, chunks, room = [], [], CATCH_UP
        for reply in replies:
            read = self._read(reply)
            if len(read.words) + len(reply.tokens) + self.most > self.language.cfg.context:
                continue
            read.catch_up(reply.tokens)
            left = read.left(reply.tokens)
            if len(left) <= AT_ONCE:
                ready.append(reply)
            elif chunk := left[: min(room, len(left) - 1)]:
                chunks.append((read, chunk))
                room -= len(chunk)
        if chunks:
            self._states(chunks)
        return ready

    def draft(self, asked: Sequence[tuple[Reply, int]]) -> list[list[int]]:
        guesses: list[list[int]] = [[] for _ in asked]
        reads = [self._read(reply) for reply, _ in asked]
        for read, (reply, _) in zip(reads, asked, strict=True):
            read.catch_up(reply.tokens)
        going = [number for number, (_, most) in enumerate(asked) if most > 0]
        while going:
            feeds = [
                (reads[number], guesses[number][-1:] or reads[number].left(asked[number][0].tokens)) for number in going
            ]
            logits_RV = self.language.logits(torch.stack(self._states(feeds)))[:, : self._width]
            for number, logits_V in zip(going, logits_RV, strict=True):
                guesses[number].append(guess(logits_V, asked[number][0], guesses[number]))
            going = [number for number in going if len(guesses[number]) < asked[number][1]]
        return guesses

    def _states(self, feeds: Sequence[tuple[Read, list[int]]]) -> list[Tensor]:
        """Read tokens of several replies in one pass; of each the state `[D]` behind its last."""
        counts = [len(tokens) for _, tokens in feeds]
        table = self.language.embedding
        ids_T = torch.tensor([token for _, tokens in feeds for token in tokens], device=table.weight.device)
        x_TD = table(ids_T.clamp(max=table.num_embeddings - 1))  # a longer table's padding is no token, but may be said
        caches = Apart([read.cache for read, _ in feeds], self._sizes, counts)
        states_TD = self.language.step(x_TD, caches)
        for read, tokens in feeds:
            read.behind += tokens[max(0, len(read.words) - (read.cache.length - len(tokens))) :]
        return [own_TD[-1] for own_TD in states_TD.split(counts)]

    def _read(self, reply: Reply) -> Read:
        read: Read | None = reply.drafts.get(self.name)
        if read is None:
            request = reply.job.request
            words = [token for token in request.prompt.ids if token not in self._slots]
            room = len(words) + request.max_tokens + self.most
            read = Read(words, KVCache(self.language.cfg, 1, room, like=self.language.embedding.weight))
            reply.drafts[self.name] = read
        return read


def guess(logits_V: Tensor, reply: Reply, ahead: Sequence[int]) -> int:
    """What a reply would take next if these were its logits, behind the tokens guessed `ahead`."""
    request, said = reply.job.request, [*reply.tokens, *ahead]
    try:
        return likely(logits_V, request.sampling, said, request.prompt.ids, len(said), reply.choice, reply.seed)
    except VlmError:  # nothing may come, by its wishes: the model itself will say so
        return int(logits_V.argmax())


def _check_tokens(draft: Assembled, processor: Processor) -> None:
    theirs, ours = draft.tokenizer.vocabulary(), processor.tokenizer.vocabulary()
    what = f"draft {draft.name}: expected the tokens of the model it guesses for"
    if len(theirs) != len(ours):
        raise BadInput(f"{what}, {len(ours)} of them, got {len(theirs)}")
    for token, number in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != number:
            raise BadInput(f"{what}, where {number} is {token!r}, got one where {token!r} is {theirs.get(token)}")
    if draft.model.language.cfg.vocab_size <= max(ours.values(), default=0):
        raise BadInput(f"{what}, {len(ours)} of them, got an embedding of {draft.model.language.cfg.vocab_size}")

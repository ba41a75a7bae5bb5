"""Prompts are read in chunks, those of several replies in one pass over the weights.

A chunk's states are the same alone and beside others: together they have one of the numbers of rows that agree
(`vlm.engine.rows`), and each attends alone. T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.engine.encoder_cache import EncoderCache
from vlm.engine.job import Job, Reply, ids_of, inputs
from vlm.engine.rows import Rows
from vlm.language.attention.kv_cache import Apart
from vlm.language.steps import filled
from vlm.models.vision_language import VisionLanguageModel


@dataclass
class Chunk:
    """The part of its prompt that a reply reads next, as embeddings `[T, D]`."""

    reply: Reply
    part: range
    x_TD: Tensor


class Reading:
    """Of one model."""

    def __init__(self, model: VisionLanguageModel, pictures: EncoderCache, rows: Rows):
        self.model, self.pictures, self.rows = model, pictures, rows

    def unseen(self, reply: Reply, part: range) -> bool:
        """Whether a chunk needs a picture that is not encoded yet."""
        job = reply.job
        return any(_within(item.places, part) and job.keys[item.number] not in self.pictures for item in job.shown)

    def chunk(self, reply: Reply, part: range) -> Chunk:
        """Ready to be read; pictures that stand in it are encoded."""
        job = reply.job
        ids_1T = ids_of(reply, part, self.model.device)
        visual = [self._seen(job, item.number) if _within(item.places, part) else ids_1T[0, :0] for item in job.shown]
        return Chunk(reply, part, self.model.embed(ids_1T, inputs(reply, part, visual))[0])

    def fits(self, chunks: Sequence[Chunk], chunk: Chunk) -> bool:
        """Whether one more may be read together with others."""
        rows = sum(len(one.part) for one in (*chunks, chunk))
        return rows <= max(self.rows.chunks, default=0) and all(map(self._fixed, (*chunks, chunk)))

    def read(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Read them into their replies' caches; of each the states `[T, D]` of its tokens."""
        if not self.fits(chunks[:-1], chunks[-1]):
            (one,) = chunks
            whole = len(one.reply.job.request.prompt.ids)
            assert one.reply.cache is not None
            cache, tokens = one.reply.cache, len(one.part)
            return list(self.model.language.prefill(one.x_TD[None], cache, chunk=tokens, whole=whole, every=True))
        x_TD = torch.cat([one.x_TD for one in chunks])
        size = next(size for size in self.rows.chunks if size >= len(x_TD))
        counts = [len(one.part) for one in chunks]
        caches = [one.reply.cache for one in chunks if one.reply.cache is not None]
        states_TD = self.model.language.step(filled(x_TD, size), Apart(caches, self.rows.steps, counts))
        return list(states_TD[: len(x_TD)].split(counts))

    def _fixed(self, chunk: Chunk) -> bool:
        """Whether positions do not depend on how long the prompt is."""
        return self.model.language.cfg.rope.fixed(len(chunk.reply.job.request.prompt.ids))

    def _seen(self, job: Job, number: int) -> Tensor:
        """The visual tokens `[M, D]` of one picture or clip."""
        item, layout = job.request.prompt.media[number], job.request.prompt.layouts[number]
        return self.pictures.visual(job.keys[number], item, layout)


def _within(places: tuple[int, ...], part: range) -> bool:
    """Whether any of these slots stands in the chunk."""
    return any(place in part for place in places)

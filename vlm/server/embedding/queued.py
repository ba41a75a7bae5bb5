"""A model behind its queues: texts, pictures and clips to vectors of its space, within the limits. D width."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vlm.heads.moments import WATCHED
from vlm.index.base import Vectors
from vlm.media.process.pictures import Picture
from vlm.server.embedding.decoding import Decoding, give_way
from vlm.server.embedding.embedder import Embedder
from vlm.server.http.batching import Batcher
from vlm.server.http.errors import ApiError, busy
from vlm.server.http.metrics import EmbeddingMetrics
from vlm.server.http.settings import ServerSettings
from vlm.server.http.sources import ClipFile, PictureBytes, Source

MATCHING = 8
"""Searches that are re-ranked or wait for it."""


@dataclass(frozen=True)
class Frames:
    """F frames of a clip: unit vectors `[F, D]`, times in seconds, the clip's duration."""

    vectors: Vectors
    times: tuple[float, ...]
    duration: float


@dataclass(frozen=True)
class Embedded:
    """A unit vector `[D]` and what is shown of its source."""

    vector: Vectors
    thumbnail: bytes | None = None
    frames: Frames | None = None


class QueuedModel:
    """Made in the event loop."""

    def __init__(
        self, settings: ServerSettings, embedder: Embedder, decoding: Decoding, metrics: EmbeddingMetrics
    ) -> None:
        self.embedder, self._limits, self._decoding = embedder, settings.limits, decoding
        workers, of = embedder.workers, {"model": embedder.name}
        shared: dict[str, Any] = {"capacity": self._limits.queue, "seconds": self._limits.answer_seconds}
        if workers > 1:  # company comes while others are worked on
            shared["linger"] = 0.0
        # Texts have threads of their own: a search waits for no picture, and comes before them where cores are few.
        self._threads = [
            ThreadPoolExecutor(workers, "texts", initializer=embedder.begin),
            ThreadPoolExecutor(workers, "pictures", initializer=self._behind),
        ]
        self._matcher, self._matching = ThreadPoolExecutor(1, "matcher", initializer=give_way), 0
        self._texts: Batcher[str] = Batcher(
            embedder.embed_texts, executor=self._threads[0], workers=workers, batch=settings.batch,
            observe=metrics.batches.labels(kind="text", **of).observe, **shared,
        )  # fmt: skip
        self._pictures: Batcher[Picture] = Batcher(
            embedder.embed_images, executor=self._threads[1], workers=workers,
            batch=min(settings.batch, embedder.batch), observe=metrics.batches.labels(kind="image", **of).observe,
            **shared,
        )  # fmt: skip
        metrics.waiting.labels(kind="text", **of).set_function(lambda: len(self._texts))
        metrics.waiting.labels(kind="image", **of).set_function(lambda: len(self._pictures))
        # Some to read and decode while others are embedded; what a query asks passes all those that wait.
        self._uploads = asyncio.Semaphore(2 * decoding.at_once + workers * embedder.batch)
        self._coming = 0

    def _behind(self) -> None:
        give_way()
        self.embedder.begin()

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._texts.close()
        await self._pictures.close()
        for threads in [*self._threads, self._matcher]:
            await asyncio.to_thread(threads.shutdown)

    def admit(self, count: int) -> None:
        """Raises `ApiError` 429 where so many more pictures would wait for longer than the limit."""
        seconds = (self._coming + count) * self._pictures.pace / self.embedder.workers
        if count and self._coming and seconds > self._limits.wait_seconds:
            raise busy(f"{self._coming} pictures and clips are on their way in", seconds - self._limits.wait_seconds)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One picture or clip on its way in: it waits here, before it is read, for as long as it takes."""
        self._coming += 1
        try:
            async with self._uploads:
                yield
        finally:
            self._coming -= 1

    async def texts(self, texts: Sequence[str], *, patient: bool = False) -> Vectors:
        """`[N, D]`. Raises `ApiError` 422 for an empty text or one over the limit."""
        for text in texts:
            if not text.strip():
                raise ApiError(422, "invalid", "text: expected some words, got none")
            if len(text) > self._limits.text:
                raise ApiError(413, "too_large", f"text: expected at most {self._limits.text} characters")
        return await self._texts.embed(texts, patient=patient)

    def vector(self, values: Sequence[float]) -> Vectors:
        """A caller's, brought to length 1, `[D]`. Raises `ApiError` 422 for another width, or one without a length."""
        if len(values) != self.embedder.width:
            raise ApiError(422, "invalid", f"vector: expected {self.embedder.width} numbers, got {len(values)}")
        row_D = np.array(values, np.float64)
        most = np.abs(row_D).max()
        if not (np.isfinite(most) and most > 0):
            raise ApiError(422, "invalid", "vector: expected finite numbers that are not all 0")
        row_D /= most  # so that no square overflows
        return (row_D / np.linalg.norm(row_D)).astype(np.float32)

    async def picture(self, source: PictureBytes, *, patient: bool = False, shown: bool = False) -> Embedded:
        """`shown` wants a small picture too. Raises `BadInput` for what is no picture."""
        embed = partial(self._pictures.embed, patient=patient)
        return Embedded(*await self._decoding.picture(source, self.embedder.resize, embed, shown=shown))

    async def clip(self, source: ClipFile, *, patient: bool = False, shown: bool = False) -> Embedded:
        """`shown` wants a small picture and the frames for its moments too. Raises `BadInput` for what is no clip."""
        embed, frames = partial(self._pictures.embed, patient=patient), self._decoding.frames
        async with self._decoding.clip(source) as reader:
            rows_FD, _, thumbnail = await frames(reader, self.embedder.sampling, embed)
            mean_D = rows_FD.mean(axis=0)
            vector = (mean_D / np.linalg.norm(mean_D)).astype(np.float32)
            if not shown:
                return Embedded(vector)
            watched_FD, times, _ = await frames(reader, WATCHED, embed)
            return Embedded(vector, thumbnail, Frames(watched_FD, times, float(reader.duration)))

    async def match(self, pictures: Sequence[bytes], text: str) -> list[float]:
        """How well a text fits each, in nats a token. Raises `Incapable`, and `ApiError` 429 where too many wait."""
        if self._matching >= MATCHING:
            raise busy(f"{self._matching} searches are being re-ranked", 5)
        self._matching += 1
        try:
            work = partial(self.embedder.match, pictures, [text] * len(pictures))
            return await asyncio.get_running_loop().run_in_executor(self._matcher, work)
        finally:
            self._matching -= 1


async def vector_of(model: QueuedModel, source: Source) -> Vectors:
    """`[D]` of a picture or clip that is not kept."""
    if isinstance(source, PictureBytes):
        return (await model.picture(source)).vector
    try:
        return (await model.clip(source)).vector
    finally:
        source.discard()

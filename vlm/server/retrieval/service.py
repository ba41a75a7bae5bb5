"""What the routes ask: texts, pictures and clips to vectors, within the limits. F frames, D width."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.heads.moments import WATCHED
from vlm.index.base import Vectors
from vlm.media.process.pictures import COPIES, Picture, PictureDecoder, Resize
from vlm.media.thumbnails import thumbnail as thumbnail_of
from vlm.media.video.reader import VideoReader, open_video
from vlm.media.video.sampling.base import Sampler
from vlm.server.http.batching import Batcher
from vlm.server.http.budget import Budget
from vlm.server.http.errors import ApiError, busy
from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Settings
from vlm.server.http.sources import ClipFile, PictureBytes, Source, Sources
from vlm.server.retrieval.collections import Collections
from vlm.server.retrieval.embedder import Embedder
from vlm.server.retrieval.media import Frames

T = TypeVar("T")
NICE = 1
MATCHING = 8
"""Searches that are re-ranked or wait for it."""
AT_ONCE = 8
"""Frames of a clip in memory."""


@dataclass(frozen=True)
class Embedded:
    """A unit vector `[D]` and what is shown of its source."""

    vector: Vectors
    thumbnail: bytes | None = None
    frames: Frames | None = None


def give_way() -> None:
    """This thread, and the processes that it starts, get four fifths of the time that others do; on Linux."""
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Service:
    """Made in the event loop, once the model is there."""

    def __init__(self, settings: Settings, embedder: Embedder, metrics: Metrics) -> None:
        self.settings, self.limits, self.embedder, self.metrics = settings, settings.limits, embedder, metrics
        shared: dict[str, Any] = {"capacity": self.limits.queue, "seconds": self.limits.answer_seconds}
        if embedder.workers > 1:  # company comes while others are worked on
            shared["linger"] = 0.0
        # Texts have threads of their own: a search waits for no picture, and comes before them where cores are few.
        self._threads = [
            ThreadPoolExecutor(embedder.workers, "texts"),
            ThreadPoolExecutor(embedder.workers, "pictures", initializer=give_way),
        ]
        self._matcher, self._matching = ThreadPoolExecutor(1, "matcher", initializer=give_way), 0
        self._texts: Batcher[str] = Batcher(
            embedder.embed_texts, executor=self._threads[0], workers=embedder.workers, batch=settings.batch,
            observe=metrics.batches.labels("text").observe, **shared,
        )  # fmt: skip
        self._pictures: Batcher[Picture] = Batcher(
            embedder.embed_images, executor=self._threads[1], workers=embedder.workers,
            batch=min(settings.batch, embedder.batch), observe=metrics.batches.labels("image").observe, **shared,
        )  # fmt: skip
        metrics.waiting.labels("text").set_function(lambda: len(self._texts))
        metrics.waiting.labels("image").set_function(lambda: len(self._pictures))
        self._decoding = ThreadPoolExecutor(settings.decoders, "decoder", initializer=give_way)
        self._decoder = PictureDecoder(self.limits.pixels, self.limits.decode_seconds)
        metrics.deaths.set_function(lambda: self._decoder.deaths)
        self._memory = Budget(self.limits.decoded_bytes)
        self._clips = asyncio.Semaphore(settings.decoders)
        # Some to read and decode while others are embedded; what a query asks passes all those that wait.
        self._uploads = asyncio.Semaphore(2 * settings.decoders + embedder.workers * embedder.batch)
        self._coming = 0
        self.collections = Collections(settings, embedder.space, embedder.width, metrics.committed)
        self.sources = Sources(settings, self.collections.temporary)

    async def close(self) -> None:
        """Finish what was accepted; then everything is on disk."""
        await self._texts.close()
        await self._pictures.close()
        await self.collections.close()
        await asyncio.to_thread(self._decoding.shutdown)
        self._decoder.close()
        await asyncio.to_thread(self.sources.close)
        for threads in [*self._threads, self._matcher]:
            threads.shutdown()

    def measure(self) -> None:
        """What is counted when somebody asks."""
        for collection in self.collections:
            self.metrics.items.labels(collection.name).set(len(collection))

    def admit(self, count: int) -> None:
        """Raises `ApiError` 429 where so many more pictures would wait for longer than the limit."""
        seconds = (self._coming + count) * self._pictures.pace / self.embedder.workers
        if count and self._coming and seconds > self.limits.wait_seconds:
            raise busy(f"{self._coming} pictures and clips are on their way in", seconds - self.limits.wait_seconds)

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
            if len(text) > self.limits.text:
                raise ApiError(413, "too_large", f"text: expected at most {self.limits.text} characters")
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
        content, decoder = source.content, self._decoder
        count = await self._decoded(decoder.count, content)
        async with self._memory.reserve(COPIES * count) as room:
            found = await self._decoded(partial(decoder.decoded, thumbnail=shown), content, self.embedder.resize)
            room.shrink(found.pixels.nbytes)
            vectors = await self._pictures.embed([found.pixels], patient=patient)
        return Embedded(vectors[0], found.thumbnail)

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

    async def small(self, source: Source) -> bytes:
        """A JPEG to show of what is not kept: a picture, or a clip's first frame. Raises `BadInput` for neither."""
        if isinstance(source, PictureBytes):
            async with self._memory.reserve(COPIES * await self._decoded(self._decoder.count, source.content)):
                work = partial(self._decoder.decoded, thumbnail=True)
                return (await self._decoded(work, source.content, Resize(1, 1, "bilinear"))).thumbnail or b""
        async with self._clips:
            reader = await asyncio.to_thread(open_video, source.path, deadline=self.limits.decode_seconds)
            try:
                (frame,) = await asyncio.to_thread(reader.frames, [0])
                return await asyncio.to_thread(thumbnail_of, Image.fromarray(np.asarray(frame)))
            finally:
                await asyncio.to_thread(reader.close)

    async def _decoded(self, work: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoding, work, *given)

    async def clip(self, source: ClipFile, *, patient: bool = False, shown: bool = False) -> Embedded:
        """`shown` wants a small picture and the frames for its moments too. Raises `BadInput` for what is no clip."""
        async with self._clips:
            try:
                return await self._clip(source, patient, shown)
            except BadInput as error:  # where its file lies is nobody's business
                raise BadInput(str(error).replace(str(source.path), source.name or "clip")) from None

    async def _clip(self, source: ClipFile, patient: bool, shown: bool) -> Embedded:
        reader = await asyncio.to_thread(open_video, source.path, deadline=self.limits.decode_seconds)
        try:
            rows_FD, _, thumbnail = await self._frames(reader, self.embedder.sampling, patient)
            mean_D = rows_FD.mean(axis=0)
            vector = (mean_D / np.linalg.norm(mean_D)).astype(np.float32)
            if not shown:
                return Embedded(vector)
            watched_FD, times, _ = await self._frames(reader, WATCHED, patient)
            return Embedded(vector, thumbnail, Frames(watched_FD, times, float(reader.duration)))
        finally:
            await asyncio.to_thread(reader.close)

    async def _frames(
        self, reader: VideoReader, sampling: Sampler, patient: bool
    ) -> tuple[Vectors, tuple[float, ...], bytes]:
        """`[F, D]`, their times, and the first one small."""
        indices = await asyncio.to_thread(sampling.pick, reader)
        rows, thumbnail = [], b""
        for start in range(0, len(indices), AT_ONCE):
            frames = await asyncio.to_thread(reader.frames, indices[start : start + AT_ONCE])
            pixels = [np.asarray(frame) for frame in frames]
            async with self._memory.reserve(sum(picture.nbytes for picture in pixels)):
                rows.append(await self._pictures.embed(pixels, patient=patient))
            thumbnail = thumbnail or await asyncio.to_thread(thumbnail_of, Image.fromarray(pixels[0]))
        return np.concatenate(rows), tuple(float(reader.times_N[index]) for index in indices), thumbnail

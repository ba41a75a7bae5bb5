"""What the routes ask: texts, pictures and clips to vectors, within the limits. F frames, D width."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm.errors import BadInput
from vlm.heads.moments import WATCHED
from vlm.index.base import Vectors
from vlm.media.process.pictures import Picture, PictureDecoder
from vlm.media.video.reader import VideoReader, open_video
from vlm.media.video.sampling.base import Sampler
from vlm.server.http.batching import Batcher
from vlm.server.http.errors import ApiError
from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Settings
from vlm.server.http.sources import ClipFile, PictureBytes, Sources
from vlm.server.retrieval.collections import Collections
from vlm.server.retrieval.embedder import Embedder
from vlm.server.retrieval.media import Frames, small

AT_ONCE = 8
"""Frames of a clip in memory."""


@dataclass(frozen=True)
class Embedded:
    """A unit vector `[D]` and what is shown of its source."""

    vector: Vectors
    thumbnail: bytes | None = None
    frames: Frames | None = None


class WeightedSemaphore:
    """Bounds the bytes that decoded pictures hold at a time; one that is larger than the bound is held alone."""

    def __init__(self, total: int) -> None:
        self._total = self._left = total
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def acquire(self, amount: int) -> AsyncIterator[None]:
        amount = min(amount, self._total)
        async with self._changed:
            await self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            async with self._changed:
                self._left += amount
                self._changed.notify_all()


class Service:
    """Made in the event loop, once the model is there."""

    def __init__(self, settings: Settings, embedder: Embedder, metrics: Metrics) -> None:
        self.settings, self.limits, self.embedder, self.metrics = settings, settings.limits, embedder, metrics
        self._model = ThreadPoolExecutor(1, "model")
        shared: dict[str, Any] = {
            "capacity": self.limits.queue,
            "batch": settings.batch,
            "seconds": self.limits.answer_seconds,
        }
        self._texts: Batcher[str] = Batcher(
            embedder.embed_texts, executor=self._model, observe=metrics.batches.labels("text").observe, **shared
        )
        self._pictures: Batcher[Picture] = Batcher(
            embedder.embed_images, executor=self._model, observe=metrics.batches.labels("image").observe, **shared
        )
        metrics.waiting.labels("text").set_function(lambda: len(self._texts))
        metrics.waiting.labels("image").set_function(lambda: len(self._pictures))
        self._decoding = ThreadPoolExecutor(settings.decoders, "decoder")
        self._decoder = PictureDecoder(self.limits.pixels, self.limits.decode_seconds)
        metrics.deaths.set_function(lambda: self._decoder.deaths)
        self._memory = WeightedSemaphore(self.limits.decoded_bytes)
        self._clips = asyncio.Semaphore(settings.decoders)
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
        self._model.shutdown()

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
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self._decoding, self._decoder.decode, source.content)
        async with self._memory.acquire(pixels.nbytes):
            thumbnail = await asyncio.to_thread(small, pixels) if shown else None
            return Embedded((await self._pictures.embed([pixels], patient=patient))[0], thumbnail)

    async def clip(self, source: ClipFile, *, patient: bool = False, shown: bool = False) -> Embedded:
        """`shown` wants a small picture and the frames for its moments too. Raises `BadInput` for what is no clip."""
        async with self._clips:
            try:
                return await asyncio.wait_for(self._clip(source, patient, shown), self.limits.answer_seconds)
            except asyncio.TimeoutError:
                raise ApiError(504, "timeout", f"no end of the clip in {self.limits.answer_seconds:g} s") from None
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
            async with self._memory.acquire(sum(picture.nbytes for picture in pixels)):
                rows.append(await self._pictures.embed(pixels, patient=patient))
            thumbnail = thumbnail or await asyncio.to_thread(small, pixels[0])
        return np.concatenate(rows), tuple(float(reader.times_N[index]) for index in indices), thumbnail

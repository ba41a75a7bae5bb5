"""Pictures and clips to pixels, within one bound of memory for all models of a server. F frames, D width."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.index.base import Vectors
from vlm.media.process.pictures import COPIES, Picture, PictureDecoder, Resize
from vlm.media.thumbnails import thumbnail as thumbnail_of
from vlm.media.video.reader import VideoReader, open_video
from vlm.media.video.sampling.base import Sampler
from vlm.server.http.budget import Budget
from vlm.server.http.metrics import EmbeddingMetrics
from vlm.server.http.settings import ServerSettings
from vlm.server.http.sources import ClipFile, PictureBytes, Source

T = TypeVar("T")
Embed = Callable[[Sequence[Picture]], Awaitable[Vectors]]
"""`[N, D]` of so many pictures."""
NICE = 1
AT_ONCE = 8
"""Frames of a clip in memory."""


def give_way() -> None:
    """This thread, and the processes that it starts, get four fifths of the time that others do; on Linux."""
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Decoding:
    """Its processes and threads, and the room of what is decoded. Made in the event loop."""

    def __init__(self, settings: ServerSettings, metrics: EmbeddingMetrics) -> None:
        self._limits, self.at_once = settings.limits, settings.decoders
        self._threads = ThreadPoolExecutor(settings.decoders, "decoder", initializer=give_way)
        self._decoder = metrics.watched(PictureDecoder(self._limits.pixels, self._limits.decode_seconds))
        self.memory = Budget(self._limits.decoded_bytes)
        """Of the whole server: what else decodes takes its room here too."""
        self._clips = asyncio.Semaphore(settings.decoders)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._decoder.close()

    async def picture(
        self, source: PictureBytes, resize: Resize | None, embed: Embed, *, shown: bool
    ) -> tuple[Vectors, bytes | None]:
        """What `embed` makes of it, `[D]`, and where it is `shown` a JPEG. Raises `BadInput` for what is no picture."""
        content, decoder = source.content, self._decoder
        count = await self._done(decoder.count, content)
        async with self.memory.reserve(COPIES * count) as room:
            found = await self._done(partial(decoder.decoded, thumbnail=shown), content, resize)
            room.shrink(found.pixels.nbytes)
            vectors = await embed([found.pixels])
        return vectors[0], found.thumbnail

    @asynccontextmanager
    async def clip(self, source: ClipFile) -> AsyncIterator[VideoReader]:
        """One that is being read, a few at a time. Raises `BadInput` for what is no clip."""
        async with self._clips:
            try:
                reader = await asyncio.to_thread(open_video, source.path, deadline=self._limits.decode_seconds)
                try:
                    yield reader
                finally:
                    await asyncio.to_thread(reader.close)
            except BadInput as error:  # where its file lies is nobody's business
                raise BadInput(str(error).replace(str(source.path), source.name or "clip")) from None

    async def frames(
        self, reader: VideoReader, sampling: Sampler, embed: Embed
    ) -> tuple[Vectors, tuple[float, ...], bytes]:
        """`[F, D]`, their times, and the first one small."""
        indices = await asyncio.to_thread(sampling.pick, reader)
        rows, thumbnail = [], b""
        for start in range(0, len(indices), AT_ONCE):
            frames = await asyncio.to_thread(reader.frames, indices[start : start + AT_ONCE])
            pixels = [np.asarray(frame) for frame in frames]
            async with self.memory.reserve(sum(picture.nbytes for picture in pixels)):
                rows.append(await embed(pixels))
            thumbnail = thumbnail or await asyncio.to_thread(thumbnail_of, Image.fromarray(pixels[0]))
        return np.concatenate(rows), tuple(float(reader.times_N[index]) for index in indices), thumbnail

    async def small(self, source: Source) -> bytes:
        """A JPEG to show of what is not kept: a picture, or a clip's first frame. Raises `BadInput` for neither."""
        if isinstance(source, PictureBytes):
            async with self.memory.reserve(COPIES * await self._done(self._decoder.count, source.content)):
                work = partial(self._decoder.decoded, thumbnail=True)
                return (await self._done(work, source.content, Resize(1, 1, "bilinear"))).thumbnail or b""
        async with self.clip(source) as reader:
            (frame,) = await asyncio.to_thread(reader.frames, [0])
            return await asyncio.to_thread(thumbnail_of, Image.fromarray(np.asarray(frame)))

    async def _done(self, work: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

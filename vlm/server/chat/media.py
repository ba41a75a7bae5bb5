"""Pictures and clips of a conversation, opened within the limits: fetched, measured, given room, decoded. F frames."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
from PIL import Image

from vlm.errors import BadInput
from vlm.media.open import Media
from vlm.media.process.pictures import COPIES, PictureDecoder, Resize
from vlm.media.urls import is_url
from vlm.media.video.reader import open_video
from vlm.media.video.sampling import Rate, Sampler
from vlm.server.chat.asked import LOW_PIXELS, Detail, Looked
from vlm.server.chat.settings import ChatLimits, ChatSettings
from vlm.server.http.budget import Budget, Room
from vlm.server.http.errors import ApiError, busy
from vlm.server.http.metrics import Answered
from vlm.server.http.settings import MB
from vlm.server.http.sources import ClipFile, Source, Sources

CHANNELS = 3
AT_ONCE = 8
"""Whole frames of a clip in memory, where they are made smaller."""
FILE = "file://"


@dataclass(frozen=True)
class Looks:
    """How media are to be looked at."""

    sampling: Sampler
    """Of clips."""
    min_pixels: int = 1
    max_pixels: int | None = None

    @property
    def resizes(self) -> bool:
        return self.min_pixels > 1 or self.max_pixels is not None

    def low(self, detail: Detail | None) -> Looks:
        """With the bound of a picture's detail."""
        most = min(self.max_pixels or LOW_PIXELS, LOW_PIXELS)
        return replace(self, max_pixels=most, min_pixels=min(self.min_pixels, most)) if detail == "low" else self

    def fitted(self, image: Image.Image) -> Image.Image:
        """Within the bounds, its shape kept."""
        pixels = image.width * image.height
        wanted = max(pixels, self.min_pixels)
        wanted = wanted if self.max_pixels is None else min(wanted, self.max_pixels)
        if wanted == pixels:
            return image
        scale, round_ = math.sqrt(wanted / pixels), math.floor if wanted < pixels else math.ceil
        size = (max(1, round_(image.width * scale)), max(1, round_(image.height * scale)))
        return image.resize(size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Named:
    """A picture or clip that a request names or brings along."""

    address: str | Source
    """A `data:` URL, an http(s) URL, a path below one of the server's folders."""
    video: bool | None
    """Whether it is to be a clip; `None` takes either."""
    looks: Looks


def looks(asked: Looked, sampling: Sampler, limits: ChatLimits) -> Looks:
    """What a request says of it, over the model's own `sampling`. Raises `ApiError` for what is over a limit."""
    for name, most in (("max_frames", limits.frames), ("min_pixels", limits.pixels)):
        if (given := getattr(asked, name)) is not None and given > most:
            raise ApiError(413, "too_large", f"{name}: expected at most {most}, got {given}")
    if asked.fps is not None:
        sampling = Rate(fps=asked.fps, frames=asked.max_frames or limits.frames)
    elif asked.max_frames is not None:
        sampling = sampling.with_frames(asked.max_frames)
    return Looks(sampling, asked.min_pixels or 1, asked.max_pixels)


class Opening:
    """Opens them, a request's at a time."""

    def __init__(
        self, settings: ChatSettings, sources: Sources, memory: Budget, metrics: Answered, resize: Resize | None
    ) -> None:
        """`memory` is the server's, for all pictures that it decodes. `resize` is what the model makes of any picture
        first: done where it is decoded, so that no whole photograph is held, nor made smaller while others wait for the
        engine."""
        self._limits, self._resize = settings.limits, resize
        self.sources, self._memory = sources, memory
        self._threads = ThreadPoolExecutor(settings.decoders, "decoder")
        self._decoder = metrics.watched(PictureDecoder(self._limits.pixels, self._limits.decode_seconds))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._decoder.close()

    @asynccontextmanager
    async def opened(self, named: Sequence[Named]) -> AsyncIterator[list[Media]]:
        """Each as frames, the same one once; they have their room in memory until the end.

        Room is taken for all at once, so that no two requests wait for each other, by what headers say: before anything
        is decoded. Raises `ApiError` 429 where there is none for too long, 413 where it is more than there is at all,
        and `BadInput` for what is no picture or clip.
        """
        sources: list[Source] = []
        async with AsyncExitStack() as stack:
            try:
                for one in named:
                    sources.append(await self._source(one))
                keys = [(source.sha256, one.looks) for source, one in zip(sources, named, strict=True)]
                distinct = dict(zip(keys, sources, strict=True))
                sizes = [await self._worked(self._size, source, key[1]) for key, source in distinct.items()]
                room = await self._room(stack, sum(kept for kept, _ in sizes) + max((o for _, o in sizes), default=0))
                media = {key: await self._worked(self._open, source, key[1]) for key, source in distinct.items()}
                room.shrink(sum(_bytes(item) for item in media.values()))
            finally:
                for source in sources:
                    if isinstance(source, ClipFile):
                        source.discard()
            sources.clear()
            distinct.clear()
            yield [media[key] for key in keys]

    async def _source(self, named: Named) -> Source:
        """Raises `ApiError`."""
        if not isinstance(named.address, str):
            return named.address
        url, video = named.address, named.video
        if url[:5].lower() == "data:":
            return await asyncio.to_thread(partial(self.sources.base64, url, video=bool(video)))
        if is_url(url):
            return await self.sources.url(url, video=bool(video))
        source = await self.sources.path(url.removeprefix(FILE))
        if video is not None and isinstance(source, ClipFile) is not video:
            raise ApiError(400, "bad_input", f"{source.name}: expected a {'clip' if video else 'picture'}")
        return source

    async def _room(self, stack: AsyncExitStack, amount: int) -> Room:
        if amount > self._memory.total:
            most = f"expected pictures and clips of at most {self._memory.total // MB} MB decoded"
            raise ApiError(413, "too_large", f"{most}, got {amount // MB}")
        try:
            with anyio.fail_after(self._limits.media_seconds):
                return await stack.enter_async_context(self._memory.reserve(amount))
        except TimeoutError:
            raise busy("pictures and clips of others take all the memory there is for them", 5) from None

    async def _worked(self, work: Any, source: Source, look: Looks) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, source, look)
        except BadInput as error:
            raise BadInput(_named(str(error), source)) from None

    def _size(self, source: Source, look: Looks) -> tuple[int, int]:
        """Bytes of what is kept, and those that decoding takes meanwhile."""
        if not isinstance(source, ClipFile):
            pixels = self._decoder.count(source.content)
            return self._kept(pixels, look), COPIES * pixels
        with open_video(source.path, deadline=self._limits.decode_seconds) as reader:
            frames, pixels = len(look.sampling.pick(reader)), reader.size[0] * reader.size[1]
        if (most := self._limits.frames) < frames:
            raise ApiError(413, "too_large", f"expected at most {most} frames of a clip, got {frames}")
        return frames * self._kept(pixels, look), AT_ONCE * CHANNELS * pixels

    def _kept(self, pixels: int, look: Looks) -> int:
        if self._resize is not None and not look.resizes:
            return CHANNELS * self._resize.width * self._resize.height
        return CHANNELS * max(pixels, look.min_pixels)

    def _open(self, source: Source, look: Looks) -> Media:
        resize = None if look.resizes else self._resize
        if not isinstance(source, ClipFile):
            found = self._decoder.decoded(source.content, resize)
            frame, notes = Image.fromarray(found.pixels), tuple(_named(note, source) for note in found.notes)
            return Media((look.fitted(frame),), source=source.name, notes=notes)
        with open_video(source.path, deadline=self._limits.decode_seconds) as reader:
            indices = look.sampling.pick(reader)
            frames: list[Image.Image] = []
            for start in range(0, len(indices), AT_ONCE):
                some = reader.frames(indices[start : start + AT_ONCE])
                frames += [look.fitted(one) if resize is None else _resized(one, resize) for one in some]
            times = tuple(float(reader.times_N[index]) for index in indices)
            notes = tuple(_named(note, source) for note in reader.notes)
            return Media(tuple(frames), times, source.name, notes, reader.duration)


def _resized(frame: Image.Image, resize: Resize) -> Image.Image:
    return frame.resize((resize.width, resize.height), Image.Resampling[resize.filter.upper()])


def _bytes(media: Media) -> int:
    return sum(CHANNELS * frame.width * frame.height for frame in media.frames)


def _named(text: str, source: Source) -> str:
    """Where a clip's file lies is nobody's business."""
    if isinstance(source, ClipFile):
        return text.replace(str(source.path), source.name or "clip")
    return text.removeprefix("image bytes: ") if source.name == "" else text.replace("image bytes", source.name, 1)

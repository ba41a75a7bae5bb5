"""What the routes ask: a conversation with its wishes becomes a request to the engine, and a reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from vlm.engine.constraint import Vocabulary
from vlm.engine.request import Constraint, Piece, Request, Sampling, Usage
from vlm.errors import BadInput, VlmError, unknown
from vlm.media.open import Media
from vlm.media.process.pictures import Resize
from vlm.models.processor import Processor, Prompt
from vlm.server.chat.loaded import Loaded
from vlm.server.chat.media import Named, Opening
from vlm.server.chat.metrics import ChatMetrics
from vlm.server.chat.replies import Reply
from vlm.server.chat.session_store import SessionStore
from vlm.server.chat.settings import ChatSettings
from vlm.server.embedding.service import Embedding
from vlm.server.http.errors import ApiError
from vlm.server.http.schemas import ModelAnswer

GREEDY = Sampling()
TOLD = (
    "characters", "media", "frames", "choices", "json_bytes", "body_bytes", "image_bytes", "video_bytes", "pixels",
)  # fmt: skip
"""Limits."""
Constrains = Callable[[Vocabulary], Constraint]


@dataclass(frozen=True)
class Wanted:
    """A conversation and how it is to be answered, whichever route it came by."""

    messages: Sequence[dict[str, Any]]
    """In OpenAI's shape; a picture's or clip's place holds its number among `media`."""
    media: Sequence[Named]
    sampling: Sampling = GREEDY
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    constrain: Constrains | None = None
    n: int = 1
    client: str = ""
    noted: Callable[[Usage], None] = lambda usage: None
    """Told what it cost, for a log."""
    read: Callable[[Processor, Sequence[Media]], Prompt] | None = None
    """Makes the prompt where it is not that of `messages`."""


class Answering:
    """A reply that is being written, and what was made of its pictures and clips. To be closed."""

    def __init__(
        self, wanted: Wanted, reply: Reply, prompt: Prompt, media: list[Media], metrics: ChatMetrics,
        stack: AsyncExitStack,
    ) -> None:  # fmt: skip
        self.prompt, self.media, self._noted = prompt, media, wanted.noted
        self._reply, self._metrics, self._stack, self._began = reply, metrics, stack, time.monotonic()
        metrics.running.inc()
        stack.callback(metrics.running.dec)

    async def pieces(self, patience: float | None = None) -> AsyncIterator[Piece | None]:
        """As `Reply.pieces`."""
        first = True
        async for piece in self._reply.pieces(patience):
            if piece is not None:
                if first:
                    self._metrics.first.observe(time.monotonic() - self._began)
                    first = False
                if piece.finish is not None:
                    self._metrics.finished.labels(piece.finish).inc()
                if piece.usage is not None:
                    self._metrics.used(piece.usage)
                    self._noted(piece.usage)
            yield piece

    async def close(self) -> None:
        self._reply.close()
        await self._stack.aclose()


class ChatService:
    """Made in the event loop, once the model is there."""

    def __init__(self, settings: ChatSettings, loaded: Loaded, beside: Embedding, metrics: ChatMetrics) -> None:
        """`beside` is what embeds in the same server: its sources and its room for pictures are for both, and it ends
        them."""
        self.settings, self.limits, self.loaded, self.metrics = settings, settings.limits, loaded, metrics
        self.began = int(time.time())
        self.deciding = asyncio.Lock()
        """Held by the one request that is decided."""
        resize = Resize.square(loaded.processor.squashed)
        self.opening = Opening(settings, beside.sources, beside.decoding.memory, metrics, resize)
        self.sessions: SessionStore | None = None
        if settings.sessions is not None and loaded.sessions is not None:
            self.sessions = SessionStore(settings.sessions, self.limits, loaded.sessions)

    def measure(self) -> None:
        self.metrics.holds(self.loaded.engine.held())

    async def close(self) -> None:
        await asyncio.to_thread(self.loaded.close)
        await self.opening.close()

    def about_models(self) -> list[ModelAnswer]:
        """The one there is."""
        return [ModelAnswer(id=self.loaded.name, created=self.began)]

    def about_limits(self) -> dict[str, Any]:
        known = {name: getattr(self.limits, name) for name in TOLD}
        return known | {"context": self.loaded.context, "urls": self.settings.urls}

    def check_model(self, name: str | None) -> None:
        """Raises `ApiError` 404 for another than the one there is."""
        if name not in (None, self.loaded.name):
            raise ApiError(404, "model_not_found", str(unknown("model", f"{name:.80}", [self.loaded.name])))

    def check_media(self, count: int) -> None:
        """Raises `ApiError` 413 for more pictures and clips than a conversation may have."""
        if count > (most := self.limits.media):
            raise ApiError(413, "too_large", f"expected at most {most} pictures and clips, got {count}")

    async def answering(self, wanted: Wanted, *, streams: bool) -> Answering:
        """Raises `ApiError` and `BadInput` for what cannot be answered, before any of it is."""
        self.check_media(len(wanted.media))
        async with AsyncExitStack() as stack:
            media = await stack.enter_async_context(self.opening.opened(wanted.media))
            prompt, constraint = await asyncio.to_thread(self._prepared, wanted, media)
            left = self.loaded.context - len(prompt.ids)
            request = Request(
                prompt,
                max_tokens=wanted.max_tokens or max(1, min(self.settings.max_tokens, left)),
                sampling=wanted.sampling, stop=wanted.stop, constraint=constraint, n=wanted.n, client=wanted.client,
                seconds=self.limits.reply_seconds,
            )  # fmt: skip
            reply = Reply(wanted.n, self.limits.pieces if streams else None)
            await reply.ask(self.loaded.engine, request)
            return Answering(wanted, reply, prompt, media, self.metrics, stack.pop_all())
        raise AssertionError("not reached")

    def _prepared(self, wanted: Wanted, media: list[Media]) -> tuple[Prompt, Constraint | None]:
        processor = self.loaded.processor
        for number, (named, item) in enumerate(zip(wanted.media, media, strict=True), 1):
            if named.looks.resizes and not processor.by_size(media):
                seen = "clip" if item.is_clip else "picture"
                raise BadInput(
                    f"{seen} {number}: expected no min_pixels, max_pixels or detail low here, since model "
                    f"{self.loaded.name} sees it in as many tokens whatever its pixels"
                )
        for token in wanted.sampling.bias:
            if token >= self.loaded.width:
                raise BadInput(f"logit_bias: expected tokens below {self.loaded.width}, got {token}")
        if wanted.read is not None:
            prompt = wanted.read(processor, media)
        else:
            prompt = processor.read(with_media(wanted.messages, media), None, lambda item: item)  # type: ignore[arg-type,return-value]
        return prompt, None if wanted.constrain is None else self._constraint(wanted.constrain)

    def _constraint(self, make: Constrains) -> Constraint:
        try:
            return make(self.loaded.vocabulary)
        except BadInput:
            raise
        except VlmError as error:  # what it needs is not installed
            raise ApiError(501, "unsupported", str(error)) from None


def with_media(messages: Sequence[dict[str, Any]], media: Sequence[Media]) -> list[dict[str, Any]]:
    """The messages with what they show."""
    return [
        {**message, "content": [
            part if part["type"] == "text" else {"type": part["type"], part["type"]: media[part["number"]]}
            for part in message["content"]
        ]}
        for message in messages
    ]  # fmt: skip

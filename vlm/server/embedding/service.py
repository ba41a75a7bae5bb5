"""What embeds in any server: its models, what decodes for them, and what opens what callers name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm.errors import BadInput, Incapable, unknown
from vlm.server.embedding.decoding import Decoding
from vlm.server.embedding.embedder import Embedder
from vlm.server.embedding.queued import QueuedModel
from vlm.server.http.metrics import EmbeddingMetrics
from vlm.server.http.schemas import ModelAnswer
from vlm.server.http.scratch import Scratch
from vlm.server.http.settings import ServerSettings
from vlm.server.http.sources import Sources

TOLD = ("batch", "inputs", "body_bytes", "json_bytes", "image_bytes", "video_bytes")
"""Limits."""


class Models:
    """Those of a server, in the order they were named; the first is taken where none is."""

    def __init__(
        self, settings: ServerSettings, embedders: Sequence[Embedder], decoding: Decoding, metrics: EmbeddingMetrics
    ) -> None:
        """Raises `BadInput` for two of the same name or space."""
        for kind in ("name", "space"):
            found = [getattr(embedder, kind) for embedder in embedders]
            if twice := sorted({one for one in found if found.count(one) > 1}):
                raise BadInput(f"--model: expected models of different {kind}s, got two of {kind} {twice[0]}")
        models = [QueuedModel(settings, embedder, decoding, metrics) for embedder in embedders]
        self._by_name = {model.embedder.name: model for model in models}
        self._by_space = {model.embedder.space: model for model in models}

    def __iter__(self) -> Iterator[QueuedModel]:
        return iter(self._by_name.values())

    @property
    def widths(self) -> dict[str, int]:
        """Of each space, the first model's first."""
        return {space: model.embedder.width for space, model in self._by_space.items()}

    def named(self, name: str | None) -> QueuedModel:
        """Raises `BadInput` with the nearest name for one that is not served, `Incapable` where none embeds."""
        if not self._by_name:
            raise Incapable("this server's model has no space that pictures and texts share; expected one like nano's")
        if name is None:
            return next(iter(self))
        if name not in self._by_name:
            raise unknown("model", name[:80], self._by_name)
        return self._by_name[name]

    def of_space(self, space: str) -> QueuedModel:
        return self._by_space[space]


class Embedding:
    """Made in the event loop, once the models are there."""

    def __init__(
        self, settings: ServerSettings, embedders: Sequence[Embedder], metrics: EmbeddingMetrics,
        temporary: Path | None = None,
    ) -> None:  # fmt: skip
        """Without `embedders` every request for vectors is refused. What callers send lies in `temporary`, by default
        a folder that goes with the server. Raises `BadInput` for two embedders of the same name or space."""
        self.settings, self.limits, self.began = settings, settings.limits, int(time.time())
        self.decoding = Decoding(settings, metrics)
        self.models = Models(settings, embedders, self.decoding, metrics)
        self._own: Scratch | None = None
        if temporary is None:
            self._own = Scratch()
            temporary = self._own.path
        self.sources = Sources(settings, temporary)

    async def close(self) -> None:
        """Finish what was accepted."""
        for model in self.models:
            await model.close()
        await self.decoding.close()
        await asyncio.to_thread(self.sources.close)
        if self._own is not None:
            await asyncio.to_thread(self._own.close)

    def measure(self) -> None:
        """All is counted as it comes."""

    def about_models(self) -> list[ModelAnswer]:
        embedders = [model.embedder for model in self.models]
        return [ModelAnswer(id=e.name, created=self.began, width=e.width) for e in embedders]

    def about_limits(self) -> dict[str, Any]:
        return {name: getattr(self.limits, name) for name in TOLD} | {"urls": self.settings.urls}

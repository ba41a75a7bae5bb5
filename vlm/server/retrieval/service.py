"""What the routes ask: the models of a server, its collections, and what is shared by all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Settings
from vlm.server.http.sources import Sources
from vlm.server.retrieval.collections import Collections
from vlm.server.retrieval.decoding import Decoding
from vlm.server.retrieval.embedder import Embedder
from vlm.server.retrieval.queued import Models, QueuedModel
from vlm.server.retrieval.reading import Readable


class Service:
    """Made in the event loop, once the models are there."""

    def __init__(self, settings: Settings, embedders: Sequence[Embedder], metrics: Metrics) -> None:
        """Raises `BadInput` for two embedders of the same name or space."""
        self.settings, self.limits, self.metrics, self.began = settings, settings.limits, metrics, int(time.time())
        self.decoding = Decoding(settings, metrics)
        self.models = Models(settings, embedders, self.decoding, metrics)
        self.collections = Collections(settings, self.models.widths, metrics.committed)
        self.sources = Sources(settings, self.collections.temporary)

    def model_of(self, collection: Readable) -> QueuedModel:
        """The one whose space a collection is of."""
        return self.models.of_space(collection.index.model)

    async def close(self) -> None:
        """Finish what was accepted; then everything is on disk."""
        for model in self.models:
            await model.close()
        await self.collections.close()
        await self.decoding.close()
        await asyncio.to_thread(self.sources.close)

    def measure(self) -> None:
        """What is counted when somebody asks."""
        for collection in self.collections:
            self.metrics.items.labels(collection.name).set(len(collection))

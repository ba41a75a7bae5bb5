"""What the routes ask: the models of a server, its collections, and what is shared by all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm.server.embedding.embedder import Embedder
from vlm.server.embedding.queued import QueuedModel
from vlm.server.embedding.service import Embedding
from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Settings
from vlm.server.retrieval.collections import Collections, temporary_of
from vlm.server.retrieval.reading import Readable


class Service(Embedding):
    """Made in the event loop, once the models are there."""

    settings: Settings

    def __init__(self, settings: Settings, embedders: Sequence[Embedder], metrics: Metrics) -> None:
        """Raises `BadInput` for two embedders of the same name or space."""
        super().__init__(settings, embedders, metrics, temporary_of(settings.root))
        self.metrics = metrics
        self.collections = Collections(settings, self.models.widths, metrics.committed)

    def model_of(self, collection: Readable) -> QueuedModel:
        """The one whose space a collection is of."""
        return self.models.of_space(collection.index.model)

    async def close(self) -> None:
        """Finish what was accepted; then everything is on disk."""
        await super().close()
        await self.collections.close()

    def measure(self) -> None:
        """What is counted when somebody asks."""
        for collection in self.collections:
            self.metrics.items.labels(collection.name).set(len(collection))

    def about_limits(self) -> dict[str, Any]:
        """And of items and hits."""
        return super().about_limits() | {"top": self.limits.top, "metadata_bytes": self.limits.metadata_bytes}

"""The application: routes inside, and around them what counts, bounds and guards every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import ASGIApp

from vlm.server.embedding.embedder import Embedder
from vlm.server.embedding.routes import embedding
from vlm.server.http.about import about
from vlm.server.http.app import Behind, Failed, Offer, finished, new_app
from vlm.server.http.auth import Keys
from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Settings
from vlm.server.http.state import Serving
from vlm.server.retrieval.browsing import browsing
from vlm.server.retrieval.routes import ready_service, v1
from vlm.server.retrieval.schemas import Item, Items
from vlm.server.retrieval.service import Service

if TYPE_CHECKING:
    from vlm.server.http.pages import Part
from vlm.server.retrieval.snapshot_routes import snapshots

OFFER = Offer((v1, browsing, embedding, about, snapshots), (Item, Items))


def create_app(
    settings: Settings,
    loads: Sequence[Callable[[], Embedder]],
    keys: Keys | None = None,
    failed: Failed = lambda error: None,
) -> ASGIApp:
    """The service of `settings`, with the models that `loads` give; the first is taken where none is named.

    It answers while they load, and is ready then; `failed` is told where that does not come about. `keys` None
    lets everybody in who reaches it: such a server belongs on loopback.
    """

    metrics = Metrics()

    async def make() -> list[Serving]:
        service = Service(settings, [await asyncio.to_thread(load) for load in loads], metrics)
        await service.collections.open()
        return [service]

    return finished(new_app("vlm retrieval", OFFER, metrics, make, failed), settings, keys, metrics, [part])


def part(app: FastAPI, settings: Settings, behind: Behind) -> Part:
    """Of the page."""
    from vlm.server.retrieval import page

    return page.part(lambda: ready_service(app), behind)

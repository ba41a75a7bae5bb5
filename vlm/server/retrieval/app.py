"""The application: routes inside, and around them what counts, bounds and guards every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from starlette.types import ASGIApp

from vlm.server.http.app import Failed, describe, guarded, new_app
from vlm.server.http.auth import Keys
from vlm.server.http.browsers import Cookies
from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Settings
from vlm.server.http.signing import Signer
from vlm.server.retrieval.about import about
from vlm.server.retrieval.browsing import browsing
from vlm.server.retrieval.embedder import Embedder
from vlm.server.retrieval.routes import ready_service, v1
from vlm.server.retrieval.schemas import Item, Items
from vlm.server.retrieval.service import Service
from vlm.server.retrieval.snapshot_routes import snapshots


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

    async def make() -> Service:
        service = Service(settings, [await asyncio.to_thread(load) for load in loads], metrics)
        await service.collections.open()
        return service

    app = new_app("vlm retrieval", metrics, make, failed)
    app.include_router(v1)
    app.include_router(browsing)
    app.include_router(about)
    app.include_router(snapshots)
    describe(app, Item, Items)
    signer, inner = Signer(), cast(ASGIApp, app)
    if settings.page:
        from vlm.server.retrieval import page

        page.mount(app, lambda: ready_service(app), keys, signer, lambda **about: logged.audit(**about))
        inner = Cookies(app)
    outer, logged = guarded(inner, settings, keys, signer, metrics)
    return outer

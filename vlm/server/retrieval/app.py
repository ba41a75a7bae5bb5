"""The application: routes inside, and around them what counts, bounds and guards every request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from vlm import __version__
from vlm.server.http import errors
from vlm.server.http.access import Logged
from vlm.server.http.auth import Guarded, Keys
from vlm.server.http.browsers import Cookies
from vlm.server.http.limits import Bounded
from vlm.server.http.metrics import Measured, Metrics
from vlm.server.http.settings import Settings
from vlm.server.http.signing import Signer
from vlm.server.retrieval.about import about
from vlm.server.retrieval.browsing import browsing
from vlm.server.retrieval.embedder import Embedder
from vlm.server.retrieval.routes import ready_service, state, v1
from vlm.server.retrieval.schemas import Item, Items
from vlm.server.retrieval.service import Service
from vlm.server.retrieval.snapshot_routes import snapshots

Failed = Callable[[BaseException], None]


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

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def ready() -> None:
            try:
                embedders = [await asyncio.to_thread(load) for load in loads]
                service = Service(settings, embedders, app.state.metrics)
                await service.collections.open()
                app.state.service = service
            except Exception as error:
                failed(error)

        starting = asyncio.create_task(ready())
        yield
        await starting
        service, app.state.service = app.state.service, None
        if service is not None:
            await service.close()

    # The interactive documents would be fetched from elsewhere.
    app = FastAPI(
        title="vlm retrieval",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.metrics, app.state.service = Metrics(), None
    errors.install(app)
    app.include_router(state)
    app.include_router(v1)
    app.include_router(browsing)
    app.include_router(about)
    app.include_router(snapshots)
    _describe(app)
    signer, inner = Signer(), cast(ASGIApp, app)
    if settings.page:
        from vlm.server.retrieval import page

        page.mount(app, lambda: ready_service(app), keys, signer, lambda **about: logged.audit(**about))
        inner = Cookies(app)
    inner = Guarded(inner, keys, signer, settings.origins)
    if settings.origins:  # with keys that a page's script sends; never with cookies
        inner = CORSMiddleware(
            inner, settings.origins, allow_methods=("*",), allow_headers=("*",), expose_headers=("Retry-After",)
        )
    logged = Logged(Bounded(inner, settings.limits), settings.access_log, settings.audit_log)
    return Measured(logged, app.state.metrics)


def _describe(app: FastAPI) -> None:
    """The schemas of items, whose route reads its body itself, join the document."""
    plain = app.openapi

    def openapi() -> dict:
        document = plain()
        schemas = document["components"]["schemas"]
        for model in (Item, Items):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]

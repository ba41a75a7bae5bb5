"""What every server's application has: a model that loads while it answers, and what counts, bounds and guards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from vlm import __version__
from vlm.server.http import errors
from vlm.server.http.access import Logged
from vlm.server.http.auth import Guarded, Keys
from vlm.server.http.limits import Bounded
from vlm.server.http.metrics import Answered, Measured
from vlm.server.http.settings import ServerSettings
from vlm.server.http.signing import Signer
from vlm.server.http.state import state

Failed = Callable[[BaseException], None]


class Serving(Protocol):
    """What the routes ask."""

    def measure(self) -> None:
        """Figures that are counted when somebody asks."""

    async def close(self) -> None:
        """Finish what was accepted."""


def new_app(title: str, metrics: Answered, make: Callable[[], Awaitable[Serving]], failed: Failed) -> FastAPI:
    """An application that answers while `make` loads, and is ready then: `app.state.service` is what it gives.

    `failed` is told where that does not come about.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def ready() -> None:
            try:
                app.state.service = await make()
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
        title=title, version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.state.metrics, app.state.service = metrics, None
    errors.install(app)
    app.include_router(state)
    return app


def guarded(
    inner: ASGIApp, settings: ServerSettings, keys: Keys | None, signer: Signer, metrics: Answered
) -> tuple[ASGIApp, Logged]:
    """The application inside what checks keys, writes logs, bounds and counts; and what writes the logs.

    `keys` None lets everybody in who reaches it: such a server belongs on loopback.
    """
    inner = Guarded(inner, keys, signer, settings.origins)
    if settings.origins:  # with keys that a page's script sends; never with cookies
        inner = CORSMiddleware(
            inner, settings.origins, allow_methods=("*",), allow_headers=("*",), expose_headers=("Retry-After",)
        )
    logged = Logged(Bounded(inner, settings.limits), settings.access_log, settings.audit_log)
    return Measured(logged, metrics), logged


def describe(app: FastAPI, *models: type[BaseModel]) -> None:
    """The schemas of bodies that routes read themselves join the document."""
    plain = app.openapi

    def openapi() -> dict:
        document = plain()
        schemas = document["components"]["schemas"]
        for model in models:
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schema.pop("$defs", None)
            schemas[model.__name__] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]

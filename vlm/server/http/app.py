"""What every server's application has: a model that loads while it answers, and what counts, bounds and guards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from vlm import __version__
from vlm.server.http import errors
from vlm.server.http.access import Logged, Logs
from vlm.server.http.auth import Guarded, Keys
from vlm.server.http.limits import Bounded
from vlm.server.http.metrics import Answered, Measured
from vlm.server.http.settings import ServerSettings
from vlm.server.http.signing import Signer
from vlm.server.http.state import Serving, state

if TYPE_CHECKING:
    from vlm.server.http.pages import Part

S = TypeVar("S", bound=ServerSettings)
Failed = Callable[[BaseException], None]


@dataclass(frozen=True)
class Offer:
    """What a server offers: routes, and the schemas of bodies that they read themselves."""

    routers: tuple[APIRouter, ...]
    bodies: tuple[type[BaseModel], ...] = ()

    def __add__(self, other: Offer) -> Offer:
        """Both; what each has is there once."""
        new = tuple(router for router in other.routers if not any(router is mine for mine in self.routers))
        return Offer(self.routers + new, self.bodies + other.bodies)


def new_app(
    title: str, offer: Offer, metrics: Answered, make: Callable[[], Awaitable[Sequence[Serving]]], failed: Failed
) -> FastAPI:
    """An application that answers while `make` loads, and is ready then: its services are what it gives, ended in the
    same order. `failed` is told where that does not come about."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def ready() -> None:
            try:
                app.state.services = await make()
            except Exception as error:
                failed(error)

        starting = asyncio.create_task(ready())
        yield
        await starting
        services, app.state.services = app.state.services, ()
        for service in services:
            await service.close()

    # The interactive documents would be fetched from elsewhere.
    app = FastAPI(
        title=title, version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False
    )
    app.state.metrics, app.state.services = metrics, ()
    errors.install(app)
    routers = (state, *offer.routers)
    app.state.routes = [route for of in (app.router, *routers) for route in of.routes if isinstance(route, Route)]
    for router in routers:
        app.include_router(router)
    _describe(app, offer.bodies)
    return app


@dataclass(frozen=True)
class Behind:
    """What a page has of its server, beside its services."""

    guarded: bool
    """Whether one logs in."""
    signer: Signer
    logs: Logs
    """For what the requests of the page do not say: they are the framework's."""


def finished(
    app: FastAPI, settings: S, keys: Keys | None, metrics: Answered,
    parts: Sequence[Callable[[FastAPI, S, Behind], Part]],
) -> ASGIApp:  # fmt: skip
    """The application with its page, where there is to be one, inside what checks keys, writes logs, bounds and counts.

    `keys` None lets everybody in who reaches it: such a server belongs on loopback.
    """
    signer, logs, inner = Signer(), Logs(settings.access_log, settings.audit_log), cast(ASGIApp, app)
    if settings.page:
        from vlm.server.http import pages

        behind = Behind(keys is not None, signer, logs)
        inner = pages.mount(app, [part(app, settings, behind) for part in parts], keys, settings.limits)
    inner = Guarded(inner, keys, signer, settings.origins)
    if settings.origins:  # with keys that a page's script sends; never with cookies
        inner = CORSMiddleware(
            inner, settings.origins, allow_methods=("*",), allow_headers=("*",), expose_headers=("Retry-After",)
        )
    return Measured(Logged(Bounded(inner, settings.limits), logs), metrics, app.state.routes)


def _describe(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
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

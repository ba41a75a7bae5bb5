"""The routes that ask how a server is, and the errors that every route may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from vlm.server.http.errors import ApiError
from vlm.server.http.schemas import Error, Health, ModelAnswer

T = TypeVar("T")

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": text}
    for status, text in {
        400: "What was sent cannot be used", 401: "No key", 403: "Not allowed", 404: "No such thing",
        408: "The body took too long", 409: "In the way of what is there", 413: "Over a limit",
        415: "Another content type", 422: "Another form", 429: "Busy: see Retry-After", 500: "The server failed",
        501: "Needs what is not installed",
        503: "Not ready, or shutting down", 504: "Not done in time",
    }.items()
}  # fmt: skip


class Serving(Protocol):
    """What stands behind some of a server's routes."""

    def measure(self) -> None:
        """Figures that are counted when somebody asks."""

    async def close(self) -> None:
        """Finish what was accepted."""

    def about_models(self) -> list[ModelAnswer]:
        """For `/v1/models`."""

    def about_limits(self) -> dict[str, Any]:
        """For `/v1/limits`: fields of its answer."""


def services(app: FastAPI) -> Sequence[Serving]:
    """All of a server. Raises `ApiError` 503 until the model is loaded."""
    if not app.state.services:
        raise ApiError(503, "not_ready", "the model is being loaded", {"Retry-After": "2"})
    found: Sequence[Serving] = app.state.services
    return found


def ready(app: FastAPI, kind: type[T]) -> T:
    """The service of this kind. Raises as `services`."""
    return next(service for service in services(app) if isinstance(service, kind))


state = APIRouter()


@state.get("/healthz")
async def healthz() -> Health:
    """Whether the process answers."""
    return Health()


@state.get("/readyz", responses={503: ERRORS[503]})
async def readyz(request: Request) -> Health:
    """Whether the model is loaded, and what it serves open."""
    services(request.app)
    return Health()


@state.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    for service in request.app.state.services:
        service.measure()
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

"""The routes that ask how a server is, and the errors that every route may answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from vlm.server.http.errors import ApiError
from vlm.server.http.schemas import Error, Health

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


def ready(app: FastAPI) -> Any:
    """What an app serves. Raises `ApiError` 503 until the model is loaded."""
    found = getattr(app.state, "service", None)
    if found is None:
        raise ApiError(503, "not_ready", "the model is being loaded", {"Retry-After": "2"})
    return found


state = APIRouter()


@state.get("/healthz")
async def healthz() -> Health:
    """Whether the process answers."""
    return Health()


@state.get("/readyz", responses={503: ERRORS[503]})
async def readyz(request: Request) -> Health:
    """Whether the model is loaded, and what it serves open."""
    ready(request.app)
    return Health()


@state.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    if (served := request.app.state.service) is not None:
        served.measure()
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

"""The routes of `/v1` that tell a client which models a server has and what it takes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from vlm.errors import unknown
from vlm.server.http.addresses import API
from vlm.server.http.errors import ApiError
from vlm.server.http.schemas import ModelAnswer
from vlm.server.http.state import ERRORS, services

about = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])


class LimitsAnswer(BaseModel):
    """Sizes in bytes. What a server does not do is not told."""

    body_bytes: int
    """Of a form with files."""
    json_bytes: int
    image_bytes: int
    video_bytes: int
    urls: bool
    """Whether URLs are fetched."""
    batch: int | None = None
    """Items or queries in a request."""
    inputs: int | None = None
    """Of a request for vectors."""
    top: int | None = None
    """Hits of a query, entries of a page."""
    metadata_bytes: int | None = None
    """Of one item, as JSON."""
    context: int | None = None
    """Tokens of a conversation and its reply."""
    characters: int | None = None
    """Of a conversation."""
    media: int | None = None
    """Pictures and clips of a conversation."""
    frames: int | None = None
    """Of a clip in a conversation."""
    choices: int | None = None
    pixels: int | None = None
    """Of a picture in a conversation."""


class ModelsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelAnswer]


@about.get("/models", response_model_exclude_none=True)
async def models(request: Request) -> ModelsAnswer:
    """Those that are served; the first is taken where none is named."""
    return ModelsAnswer(data=list(_models(request).values()))


@about.get("/models/{name:parts}", response_model_exclude_none=True)
async def model(request: Request, name: str) -> ModelAnswer:
    """One of them."""
    found = _models(request)
    if name not in found:
        raise ApiError(404, "model_not_found", str(unknown("model", f"{name:.80}", found)))
    return found[name]


@about.get("/limits", response_model_exclude_none=True)
async def limits(request: Request) -> LimitsAnswer:
    """What one request may hold."""
    told = {name: value for service in services(request.app) for name, value in service.about_limits().items()}
    return LimitsAnswer(**told)


def _models(request: Request) -> dict[str, ModelAnswer]:
    """By name; what several services have is one, of which each tells what it knows."""
    found: dict[str, ModelAnswer] = {}
    for service in services(request.app):
        for one in service.about_models():
            known = found.get(one.id, one)
            found[one.id] = known.model_copy(update=one.model_dump(exclude_none=True))
    return found

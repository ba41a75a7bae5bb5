"""The route of `/v1` that tells a client what this server takes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from vlm.server.http.addresses import API
from vlm.server.http.schemas import ModelAnswer
from vlm.server.http.state import ERRORS
from vlm.server.retrieval.routes import Served

about = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])


class LimitsAnswer(BaseModel):
    """Sizes in bytes."""

    batch: int
    """Items, queries or inputs in a request."""
    top: int
    """Hits of a query, entries of a page."""
    body_bytes: int
    """Of a form with files."""
    json_bytes: int
    image_bytes: int
    video_bytes: int
    metadata_bytes: int
    """Of one item, as JSON."""
    urls: bool
    """Whether URLs are fetched."""


class EmbedderAnswer(ModelAnswer):
    """And of how many numbers its vectors are."""

    width: int


class ModelsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[EmbedderAnswer]


@about.get("/models")
async def models(served: Served) -> ModelsAnswer:
    """Those that are served; the first is taken where none is named."""
    embedders = [model.embedder for model in served.models]
    return ModelsAnswer(data=[EmbedderAnswer(id=e.name, created=served.began, width=e.width) for e in embedders])


@about.get("/limits")
async def limits(served: Served) -> LimitsAnswer:
    """What one request may hold."""
    known = served.limits
    return LimitsAnswer(
        batch=known.batch,
        top=known.top,
        body_bytes=known.body_bytes,
        json_bytes=known.json_bytes,
        image_bytes=known.image_bytes,
        video_bytes=known.video_bytes,
        metadata_bytes=known.metadata_bytes,
        urls=served.settings.urls,
    )

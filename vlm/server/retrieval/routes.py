"""The routes of `/v1`, and those that ask how the server is."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Body, Depends, FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.security import HTTPBearer

from vlm.errors import BadInput
from vlm.server.http.addresses import API
from vlm.server.http.errors import ApiError
from vlm.server.http.remarks import remark
from vlm.server.http.state import ERRORS, ready
from vlm.server.retrieval import items as ingest
from vlm.server.retrieval import schemas as of
from vlm.server.retrieval import showing
from vlm.server.retrieval.reading import Held
from vlm.server.retrieval.reranking import reranked
from vlm.server.retrieval.searching import public, search
from vlm.server.retrieval.service import Service


def ready_service(app: FastAPI) -> Service:
    """Raises `ApiError` 503 until the model is loaded."""
    return ready(app, Service)


def service(request: Request) -> Service:
    return ready_service(request.app)


# Keys are looked at before any route is (`auth.py`); here they are told to readers of the schema.
v1 = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])
Served = Annotated[Service, Depends(service)]
FILES = {
    "type": "object",
    "properties": {
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "metadata": {"type": "string", "description": "JSON: an object for all files, or a list of one each."},
        "id": {"type": "array", "items": {"type": "string"}, "description": "One a file."},
    },
    "required": ["file"],
}


@v1.get("/collections", response_model_exclude_unset=True)
async def list_collections(served: Served) -> of.CollectionsAnswer:
    aside = [of.SetAside(name=name, reason=reason) for name, reason in served.collections.aside.items()]
    there = [_about(served, each) for each in served.collections]
    return of.CollectionsAnswer(collections=there, **({"set_aside": aside} if aside else {}))


@v1.post("/collections", status_code=201)
async def create_collection(served: Served, body: of.NewCollection) -> of.CollectionAnswer:
    """Of one of the models that are served."""
    try:
        model = served.models.named(body.model)
    except BadInput as error:
        raise ApiError(422, "invalid", str(error)) from None
    return _about(served, await served.collections.create(body.name, model.embedder.space))


@v1.get("/collections/{name:part}")
async def get_collection(served: Served, name: str) -> of.CollectionAnswer:
    return _about(served, served.collections[name])


@v1.delete("/collections/{name:part}")
async def delete_collection(served: Served, name: str) -> of.Deleted:
    """With all that is in it."""
    count = len(served.collections[name])
    await served.collections.delete(name)
    served.metrics.forget(name)
    return of.Deleted(deleted=count)


@v1.post(
    "/collections/{name:part}/items",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [{"$ref": f"#/components/schemas/{kind}"} for kind in ("Item", "Items")]}
                },
                "multipart/form-data": {"schema": FILES},
            },
        }
    },
)
async def add_items(served: Served, name: str, request: Request) -> of.ItemsAnswer:
    """Add items, or replace those of the same id. An item that is answered `added` or `replaced` is on disk.

    A collection that is not there is made.
    """
    try:
        items = await ingest.read_items(request, served.limits.batch)
        collection = await served.collections.get_or_create(name)
        statuses = await ingest.add(served, collection, items)
        kinds = Counter(str(status.status) for status in statuses)
        remark(request.scope, **kinds, ids=[status.id for status in statuses if status.error is None])
        return of.ItemsAnswer(items=statuses)
    finally:
        await request.close()  # the form's files


@v1.get("/collections/{name:part}/items/{id:parts}")
async def get_item(served: Served, name: str, id: str, vector: bool = False) -> of.ItemAnswer:
    """With `?vector=true` its vector too."""
    metadata, vector_D = await served.collections[name].entry(id)
    return of.ItemAnswer(id=id, metadata=public(metadata), vector=vector_D.tolist() if vector else None)


@v1.delete("/collections/{name:part}/items/{id:parts}")
async def delete_item(served: Served, name: str, id: str) -> of.Deleted:
    """An item that is answered to be deleted is so on disk."""
    count = await served.collections.writable(name).delete([id])
    if not count:
        raise ApiError(404, "item_not_found", f"collection {name} has no item {id[:80]!r}")
    return of.Deleted(deleted=count)


@v1.post("/collections/{name:part}/search")
async def search_collection(
    served: Served, name: str, body: Annotated[of.OneOrManySearches, Body()]
) -> of.Hits | of.ManyHits:
    """The nearest items, best first; with `queries`, those of each."""
    if isinstance(body, of.Search) and body.rerank is not None:
        return await reranked(served, served.collections[name], body, body.rerank)
    collection = await served.collections.snapshots.at(served.collections[name], body.snapshot)
    if isinstance(body, of.Searches):
        return of.ManyHits(results=await search(served, collection, body.queries, body))
    return (await search(served, collection, [body], body))[0]


@v1.get("/collections/{name:part}/thumbnails/{id:parts}", response_class=FileResponse)
async def thumbnail(served: Served, name: str, id: str) -> Response:
    """A small JPEG of a picture, or of a clip's beginning."""
    return await showing.small(served, served.collections[name], id)


@v1.get("/collections/{name:part}/videos/{id:parts}", response_class=FileResponse)
async def video(served: Served, name: str, id: str) -> FileResponse:
    """A clip as it came, in ranges if asked."""
    return await showing.clip(served, served.collections[name], id)


def _about(served: Service, collection: Held) -> of.CollectionAnswer:
    embedder = served.model_of(collection).embedder
    return of.CollectionAnswer(name=collection.name, count=len(collection), model=embedder.name, width=embedder.width)

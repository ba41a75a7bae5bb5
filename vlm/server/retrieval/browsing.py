"""The routes of `/v1` that read entries page by page, and change or delete many of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPBearer

from vlm.server.http.addresses import API
from vlm.server.http.errors import ApiError
from vlm.server.http.remarks import remark
from vlm.server.http.state import ERRORS
from vlm.server.retrieval import schemas as of
from vlm.server.retrieval.collection import Collection
from vlm.server.retrieval.items import check_metadata
from vlm.server.retrieval.routes import Served
from vlm.server.retrieval.searching import public
from vlm.server.retrieval.service import Service

browsing = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])
PAGE = 100
ITEMS = "/collections/{name:part}/items"


@browsing.get(ITEMS)
async def list_items(
    served: Served,
    name: str,
    limit: Annotated[int | None, Query(ge=1)] = None,
    after: of.KnownId | None = None,
    vectors: bool = False,
    snapshot: of.KnownId | None = None,
) -> of.ItemsPage:
    """A page of entries in the order of their ids; `next` is the `after` of the page that follows, if one does."""
    asked = of.Scroll(limit=limit, after=after, vectors=vectors, snapshot=snapshot)
    return await _page(served, name, asked)


@browsing.post(f"{ITEMS}/scroll")
async def scroll_items(served: Served, name: str, body: of.Scroll) -> of.ItemsPage:
    """As `GET`, of those that fit a filter or are named."""
    return await _page(served, name, body)


@browsing.post(f"{ITEMS}/delete")
async def delete_items(served: Served, name: str, body: of.Chosen, request: Request) -> of.Deleted:
    """Those that are named or fit a filter, at once; they are gone from the disk then."""
    count = await served.collections.writable(name).delete_chosen(body.ids, body.filter)
    remark(request.scope, deleted=count, ids=body.ids, filter=body.filter)
    return of.Deleted(deleted=count)


@browsing.post(f"{ITEMS}/update")
async def update_items(served: Served, name: str, body: of.Update, request: Request) -> of.Updated:
    """Metadata of those that are named or fit a filter: keys that are given replace those there are, null removes."""
    count = await _updated(served, served.collections.writable(name), body)
    remark(request.scope, updated=count, ids=body.ids, filter=body.filter)
    return of.Updated(updated=count)


@browsing.patch(f"{ITEMS}/{{id:parts}}")
async def update_item(served: Served, name: str, id: str, body: of.Patch) -> of.ItemAnswer:
    """As for many; gives the item as it is then."""
    collection = served.collections.writable(name)
    if not await _updated(served, collection, of.Update(ids=[id], metadata=body.metadata)):
        raise ApiError(404, "item_not_found", f"collection {name} has no item {id[:80]!r}")
    return of.ItemAnswer(id=id, metadata=public((await collection.entry(id))[0]))


async def _updated(served: Service, collection: Collection, body: of.Update) -> int:
    check_metadata(body.metadata, served.limits.metadata_bytes)
    return await collection.update(body.ids, body.filter, body.metadata, served.limits.metadata_bytes)


async def _page(served: Service, name: str, asked: of.Scroll) -> of.ItemsPage:
    most = served.limits.top
    limit = min(PAGE, most) if asked.limit is None else asked.limit
    if limit > most:
        raise ApiError(422, "invalid", f"limit: expected at most {most}, got {limit}")
    collection = await served.collections.snapshots.at(served.collections[name], asked.snapshot)
    rows = await collection.page(limit + 1, asked.after, asked.filter, asked.ids, vectors=asked.vectors)
    items = [of.ItemAnswer(id=id, metadata=public(about), vector=vector) for id, about, vector in rows[:limit]]
    return of.ItemsPage(items=items, next=items[-1].id if len(rows) > limit else None)

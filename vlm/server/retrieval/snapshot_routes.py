"""The routes of `/v1` that take, list and drop snapshots; searches and scrolls name one."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from vlm.server.http.addresses import API
from vlm.server.http.remarks import remark
from vlm.server.http.state import ERRORS
from vlm.server.retrieval.routes import Served

snapshots = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])
SNAPSHOTS = "/collections/{name:part}/snapshots"


class SnapshotAnswer(BaseModel):
    id: str


class SnapshotsAnswer(BaseModel):
    snapshots: list[SnapshotAnswer]


@snapshots.post(SNAPSHOTS, status_code=201)
async def take_snapshot(served: Served, name: str, request: Request) -> SnapshotAnswer:
    """The collection as it is now, under a name; on disk when it is answered. A state that has a name may keep it."""
    id = await served.collections.snapshots.take(served.collections.writable(name))
    remark(request.scope, snapshot=id)
    return SnapshotAnswer(id=id)


@snapshots.get(SNAPSHOTS)
async def list_snapshots(served: Served, name: str) -> SnapshotsAnswer:
    """The oldest first."""
    names = await served.collections[name].snapshots()
    return SnapshotsAnswer(snapshots=[SnapshotAnswer(id=id) for id in names])


@snapshots.delete(f"{SNAPSHOTS}/{{id:part}}")
async def drop_snapshot(served: Served, name: str, id: str, request: Request) -> SnapshotAnswer:
    """What it alone still has is given back by the engine."""
    await served.collections.snapshots.drop(served.collections.writable(name), id)
    remark(request.scope, snapshot=id)
    return SnapshotAnswer(id=id)

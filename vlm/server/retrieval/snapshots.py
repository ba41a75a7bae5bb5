"""Snapshots of a collection: the engine keeps and names them, so that they are as durable as the entries are."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from vlm.index.base import Index
from vlm.server.http.errors import ApiError
from vlm.server.retrieval.collection import Collection
from vlm.server.retrieval.reading import Held, Readable, Snapshot

KEPT = 2
"""Snapshots that stay open once they were searched, of all collections: each takes the memory of a collection."""


class Snapshots:
    """Of a server."""

    def __init__(self, most: int) -> None:
        """At most so many a collection."""
        self._most = most
        self._open: OrderedDict[tuple[Held, str], Index] = OrderedDict()
        self._changing = asyncio.Lock()
        """One is opened or dropped at a time, so that none is used that is gone."""

    async def take(self, collection: Collection) -> str:
        """The name of the state that the collection has now. Raises `ApiError` 409 where there are too many."""

        def work(index: Index) -> str:
            if len(index.snapshots()) >= self._most:
                raise ApiError(409, "too_many", f"expected at most {self._most} snapshots of a collection")
            return index.snapshot()

        return await collection.do(work)

    async def drop(self, collection: Collection, name: str) -> None:
        """Raises `ApiError` 404."""
        async with self._changing:
            try:
                await collection.do(lambda index: index.drop_snapshot(name))
            except KeyError:
                raise _none(collection, name) from None
            self._open.pop((collection, name), None)

    async def at(self, collection: Held, name: str | None) -> Readable:
        """The collection as it was at a snapshot, or as it is. Raises `ApiError` 404."""
        if name is None:
            return collection
        async with self._changing:
            if (collection, name) not in self._open:
                if name not in await collection.snapshots():
                    raise _none(collection, name)
                self._open[collection, name] = await asyncio.to_thread(collection.opened, name)
                if len(self._open) > KEPT:  # a search may still be going on in it: memory goes after that
                    self._open.popitem(last=False)
            self._open.move_to_end((collection, name))
            return Snapshot(collection, self._open[collection, name])

    def forget(self, collection: Held) -> None:
        """The collection is gone, or its index is another one."""
        for key in [key for key in self._open if key[0] is collection]:
            del self._open[key]


def _none(collection: Held, name: str) -> ApiError:
    return ApiError(404, "snapshot_not_found", f"collection {collection.name} has no snapshot {name[:80]!r}")

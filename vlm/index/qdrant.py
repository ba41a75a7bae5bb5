"""The index for more than one machine: a collection of Qdrant, behind a URL, or in this process for tests.

Points have numbers or UUIDs for ids; ours are texts. A point's id is the UUIDv5 of ours, its payload is
`{"id": ours, "metadata": ...}`, and the collection's own metadata name the model. A point is durable when `upsert`
returns. A snapshot is another collection, `<name>@<number>`, copied point by point, because Qdrant restores its own
snapshots in place only.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from vlm.errors import BadInput, VlmError
from vlm.index import checks
from vlm.index.base import Hit, Index, Metadata, Vectors, Where
from vlm.index.exact import plain
from vlm.index.filters import compiled
from vlm.index.qdrant_filters import at_least

SPACE = uuid.UUID("6f1c3d0a-5e0b-5b54-9a3e-3b8f1f5d7c11")
"""The namespace of our ids."""
BATCH = 512
"""Points in one request."""
LEAST_EF = 256
"""How many neighbours Qdrant keeps in view while it walks its graph."""


class QdrantIndex(Index):
    """Opened by `open` or `create`. A client may be shared; `close` leaves it open."""

    def __init__(self, client: QdrantClient, collection: str, width: int, model: str, snapshot: str | None = None):
        self.client, self.collection, self.width, self.model = client, collection, width, model
        self._frozen = snapshot
        self._name = collection if snapshot is None else f"{collection}@{snapshot}"
        self._place = f"qdrant:{self._name}"

    @classmethod
    def create(cls, client: QdrantClient, collection: str, width: int, model: str) -> QdrantIndex:
        """An empty collection. Raises `BadInput` where there is one of that name, or the name cannot be one."""
        if not collection or "@" in collection or "/" in collection:
            raise BadInput(f"qdrant:{collection}: expected a collection's name without @ and /")
        with _told(collection):
            if client.collection_exists(collection):
                raise BadInput(f"qdrant:{collection}: expected a new collection, got one that is there already")
            _create(client, collection, width, model)
        return cls(client, collection, width, model)

    @classmethod
    def open(
        cls,
        client: QdrantClient,
        collection: str,
        *,
        model: str | None = None,
        width: int | None = None,
        snapshot: str | None = None,
    ) -> QdrantIndex:
        """The collection, or as it was at a snapshot. Raises `BadInput` where it is missing or not as given."""
        name = collection if snapshot is None else f"{collection}@{snapshot}"
        with _told(name):
            if not client.collection_exists(name):
                raise BadInput(f"qdrant:{name}: expected an index, got no such collection")
            config = client.get_collection(name).config
        vectors, said = config.params.vectors, config.metadata or {}
        if not isinstance(vectors, models.VectorParams) or said.get("vlm_version") != 1:
            raise BadInput(f"qdrant:{name}: expected an index of version 1, got another collection")
        checks.same(f"qdrant:{name}", str(said["vlm_model"]), vectors.size, model, width)
        return cls(client, collection, vectors.size, str(said["vlm_model"]), snapshot)

    def __len__(self) -> int:
        with _told(self._name):
            return self.client.count(self._name, exact=True).count

    def __iter__(self) -> Iterator[str]:
        return (str(point.payload["id"]) for point in self._points(payload=["id"]))

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and bool(self._retrieve([id], vectors=False))

    def metadata(self, id: str) -> Metadata:
        return self._one(id).payload["metadata"]

    def vector(self, id: str) -> Vectors:
        return np.array(self._one(id).vector, dtype=np.float32)

    def items(self) -> Iterator[tuple[str, Metadata]]:
        return ((point.payload["id"], point.payload["metadata"]) for point in self._points())

    def known(self, ids: Sequence[str]) -> dict[str, Metadata]:
        parts = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
        points = [point for part in parts for point in self._retrieve(part, vectors=False)]
        return {point.payload["id"]: point.payload["metadata"] for point in points}

    def vectors(self) -> tuple[list[str], Vectors]:
        points = list(self._points(payload=["id"], vectors=True))
        rows = np.array([point.vector for point in points], dtype=np.float32).reshape(-1, self.width)
        return [point.payload["id"] for point in points], rows

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata] | None = None) -> None:
        vectors, _ = checks.entries(self._place, self.width, ids, vectors, metadata)
        checks.changeable(self.collection, self._frozen)
        rows: Sequence[Metadata] = [{}] * len(ids) if metadata is None else metadata
        points = {
            id: models.PointStruct(id=_point(id), vector=vector, payload={"id": id, "metadata": dict(row)})
            for id, vector, row in zip(ids, vectors.tolist(), rows, strict=True)
        }
        self._write(self._name, list(points.values()))

    def delete(self, ids: Sequence[str]) -> int:
        checks.changeable(self.collection, self._frozen)
        known = list(self.known(list(dict.fromkeys(ids))))
        for start in range(0, len(known), BATCH):
            points: list[Any] = [_point(id) for id in known[start : start + BATCH]]
            with _told(self._name):
                self.client.delete(self._name, models.PointIdsList(points=points), wait=True)
        return len(known)

    def search(
        self, vectors: Vectors, top: int, *, where: Where | None = None, min_score: float | None = None
    ) -> list[list[Hit]]:
        """Qdrant's candidates, as many again as asked for, scored once more here as every engine scores."""
        queries = checks.queries(self._place, self.width, vectors, top)
        fits, filter = compiled(where), at_least(where)
        count = 2 * top
        while True:
            found = self._candidates(queries, count, filter)
            hits = [
                [hit for hit in _scored(query, points) if fits(hit.metadata)][:top]
                for query, points in zip(queries, found, strict=True)
            ]
            if not any(len(some) < top and len(points) >= count for some, points in zip(hits, found, strict=True)):
                return [[hit for hit in some if min_score is None or hit.score >= min_score] for some in hits]
            count *= 4

    def count(self, where: Where | None = None) -> int:
        fits = compiled(where)
        if where is None:
            return len(self)
        return sum(fits(point.payload["metadata"]) for point in self._points(at_least(where), payload=["metadata"]))

    def commit(self) -> None:
        """Nothing is left to do: Qdrant answers a write once its log has it."""

    def snapshot(self) -> str:
        checks.changeable(self.collection, self._frozen)
        taken = _snapshots(self.client, self.collection)
        number = str(max(taken, default=0) + 1)
        name = f"{self.collection}@{number}"
        with _told(name):
            _create(self.client, name, self.width, self.model)
        points: list[models.PointStruct] = []
        for point in self._points(vectors=True):
            points.append(models.PointStruct(id=point.id, vector=point.vector, payload=point.payload))
            if len(points) == BATCH:
                self._write(name, points)
                points = []
        self._write(name, points)
        return number

    def snapshots(self) -> list[str]:
        return [str(number) for number in sorted(_snapshots(self.client, self.collection))]

    def drop_snapshot(self, name: str) -> None:
        checks.changeable(self.collection, self._frozen)
        if name not in self.snapshots():
            raise KeyError(name)
        with _told(self._name):
            self.client.delete_collection(f"{self.collection}@{name}")

    def compact(self) -> None:
        """Snapshots go; Qdrant gives back the room of what was deleted by itself."""
        checks.changeable(self.collection, self._frozen)
        for number in _snapshots(self.client, self.collection):
            with _told(self._name):
                self.client.delete_collection(f"{self.collection}@{number}")

    def close(self) -> None:
        """The client stays open: it may serve other collections."""

    def _candidates(self, queries: Vectors, count: int, filter: models.Filter | None) -> list[list[Any]]:
        wide = models.SearchParams(hnsw_ef=max(LEAST_EF, 2 * count))
        asked = [
            models.QueryRequest(
                query=query, limit=count, filter=filter, params=wide, with_payload=True, with_vector=True
            )
            for query in queries.tolist()
        ]
        with _told(self._name):
            return [answer.points for answer in self.client.query_batch_points(self._name, asked)] if asked else []

    def _points(
        self, filter: models.Filter | None = None, *, payload: bool | list[str] = True, vectors: bool = False
    ) -> Iterator[Any]:
        offset = None
        while True:
            with _told(self._name):
                points, offset = self.client.scroll(
                    self._name, filter, limit=BATCH, offset=offset, with_payload=payload, with_vectors=vectors
                )
            yield from points
            if offset is None:
                return

    def _retrieve(self, ids: Sequence[str], vectors: bool) -> list[Any]:
        with _told(self._name):
            points = [_point(id) for id in ids]
            return self.client.retrieve(self._name, points, with_payload=True, with_vectors=vectors)

    def _one(self, id: str) -> Any:
        found = self._retrieve([id], vectors=True)
        if not found:
            raise KeyError(id)
        return found[0]

    def _write(self, name: str, points: Sequence[models.PointStruct]) -> None:
        for start in range(0, len(points), BATCH):
            with _told(name):
                self.client.upsert(name, list(points[start : start + BATCH]), wait=True)


def there(client: QdrantClient, collection: str) -> bool:
    with _told(collection):
        return client.collection_exists(collection)


def drop(client: QdrantClient, collection: str) -> None:
    with _told(collection):
        for name in [collection, *(f"{collection}@{number}" for number in _snapshots(client, collection))]:
            client.delete_collection(name)


def _snapshots(client: QdrantClient, collection: str) -> list[int]:
    with _told(collection):
        names = [found.name for found in client.get_collections().collections]
    tails = [name.removeprefix(f"{collection}@") for name in names if name.startswith(f"{collection}@")]
    return [int(tail) for tail in tails if tail.isdigit()]


def _create(client: QdrantClient, name: str, width: int, model: str) -> None:
    # Not COSINE, which would keep vectors divided by their length and not as they were given.
    vectors = models.VectorParams(size=width, distance=models.Distance.DOT)
    client.create_collection(name, vectors, metadata={"vlm_version": 1, "vlm_model": model})


def _point(id: str) -> str:
    return str(uuid.uuid5(SPACE, id))


def _scored(query_D: Vectors, points: Sequence[Any]) -> list[Hit]:
    if not points:
        return []
    scores = plain(np.array([point.vector for point in points], dtype=np.float32), query_D)
    order = np.argsort(-scores, kind="stable")
    return [Hit(points[row].payload["id"], float(scores[row]), points[row].payload["metadata"]) for row in order]


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the client raises as one line."""
    try:
        yield
    except (ApiException, OSError, RuntimeError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise VlmError(f"qdrant:{name}: the server did not do it: {said:.200}") from error

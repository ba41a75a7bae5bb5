"""What `vlm bench retrieval` compares: an engine takes vectors and gives a search of them, with its own defaults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vlm.index.base import Vectors

TOP = 10

Ids = list[list[int]]
Search = Callable[[Vectors], Ids]
Engine = Callable[[Vectors, Path], Search]


class Peer(NamedTuple):
    package: str
    engine: Engine
    most: int = 10**9
    """Vectors that it is asked to hold."""


def ours(vectors: Vectors, folder: Path) -> Search:
    """The exact scan up to the index's limit, and partitions of LanceDB beyond it."""
    from vlm.index.lance import EXACT_LIMIT, LanceIndex
    from vlm.index.memory import Entries

    if len(vectors) <= EXACT_LIMIT:
        entries = Entries(vectors.shape[1])
        entries.upsert([str(row) for row in range(len(vectors))], vectors, [{}] * len(vectors))
        entries.search(vectors[:64], TOP)
        return lambda asked: [[int(hit.id) for hit in hits] for hits in entries.search(asked, TOP)]
    index = LanceIndex.create(folder, vectors.shape[1], "bench", exact_limit=EXACT_LIMIT)
    for start in range(0, len(vectors), EXACT_LIMIT):
        some = vectors[start : start + EXACT_LIMIT]
        index.upsert([str(row) for row in range(start, start + len(some))], some)
        index.commit()
    index.wait()
    return lambda asked: [[int(hit.id) for hit in hits] for hits in index.search(asked, TOP)]


def _faiss(make: Callable[[Any, int], Any], vectors: Vectors, folder: Path) -> Search:
    import faiss

    index = make(faiss, vectors.shape[1])
    index.add(vectors)
    return lambda asked: index.search(asked, TOP)[1].tolist()


def _faiss_flat(faiss: Any, width: int) -> Any:
    return faiss.IndexFlatIP(width)


def _faiss_hnsw(faiss: Any, width: int) -> Any:
    return faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)


def _lance(partitioned: bool, vectors: Vectors, folder: Path) -> Search:
    """A table as its quick start makes it, scanned, or with the index that it makes when asked for one."""
    import lancedb.index
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table: Any = lancedb.connect(folder).create_table("t", pa.table({"id": np.arange(len(vectors)), "vector": flat}))
    if partitioned:
        table.create_index("vector", config=lancedb.index.IvfPq(distance_type="dot"))

    def search(asked: Vectors) -> Ids:
        found = table.search(list(asked)).distance_type("dot").limit(TOP).select(["id", "_distance"]).to_arrow()
        ids = found["id"].to_pylist()
        return [ids[start : start + TOP] for start in range(0, len(ids), TOP)]

    return search


def _qdrant(vectors: Vectors, folder: Path) -> Search:
    """The client's local mode, which is what runs without a server: a scan in NumPy."""
    import warnings

    from qdrant_client import QdrantClient, models

    warnings.filterwarnings("ignore", "Local mode is not recommended")
    client = QdrantClient(":memory:")
    client.create_collection("t", models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT))
    client.upload_collection("t", vectors, ids=range(len(vectors)))

    def search(asked: Vectors) -> Ids:
        requests = [models.QueryRequest(query=query, limit=TOP) for query in asked.tolist()]
        return [[int(point.id) for point in answer.points] for answer in client.query_batch_points("t", requests)]

    return search


PEERS = {
    "faiss, flat": Peer("faiss", partial(_faiss, _faiss_flat)),
    "faiss, HNSW of 32": Peer("faiss", partial(_faiss, _faiss_hnsw)),
    # Its documentation advises an index from here on; 64 queries of a million take minutes.
    "LanceDB, scan": Peer("lancedb", partial(_lance, False), most=100_000),
    "LanceDB, its index": Peer("lancedb", partial(_lance, True)),
    # Its client warns of local collections of more than 20,000 points.
    "Qdrant, local": Peer("qdrant_client", _qdrant, most=20_000),
}

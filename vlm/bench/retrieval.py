"""`vlm bench retrieval`: the first ten of many vectors, one query and 64 at a time, against other engines' defaults.

Vectors lie in clusters, as pictures do; queries are drawn as they are. Ours is the exact scan up to its limit, and
partitions of LanceDB beyond it. A process for each peer builds both sides, saying how long that takes and how much
memory it needs, and asks them in turns. Recall is against the exact order.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlm.bench.timing import Missing, Result, Say, alternate, in_new_process, peak_here
from vlm.index.base import Vectors

SIZES = (10_000, 100_000, 1_000_000)
WIDTHS = (256, 512)
QUERIES = (1, 64)
TOP, ASKED = 10, 64
CLUSTERED = 0.6
"""How far from the centre of its cluster a vector lies, relative to the centre's length."""
LEAST_RECALL = 0.99
CALLS = 50
"""Of one query, for percentiles; a tenth of it of 64."""

Ids = list[list[int]]
Search = Callable[[Vectors], Ids]
Engine = Callable[[Vectors, Path], Search]


def run(rounds: int = 5, say: Say = lambda text: None, limit: int = 100_000) -> Iterator[Result]:
    """Each comparison as soon as it is made, up to `limit` vectors."""
    for count in [size for size in SIZES if size <= limit] or [limit]:
        for width in WIDTHS:
            for peer, (package, _) in PEERS.items():
                say(f"{count:,} of {width}, {peer}")
                if importlib.util.find_spec(package) is None:
                    yield Missing(f"search of {count:,} vectors of {width}", peer, f"{package} is not installed")
                    continue
                yield from in_new_process(partial(_compare, peer, count, width), rounds)


def _compare(peer: str, count: int, width: int, rounds: int) -> list[Result]:
    vectors, asked = data(count, width)
    wanted = exact(vectors, asked)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        engines: dict[str, Engine] = {"ours": ours, peer: PEERS[peer][1]}
        built = {name: _built(engine, vectors, Path(folder) / name[:5]) for name, engine in engines.items()}
        for queries in QUERIES:
            what, said = f"{queries} of {count:,} vectors of {width}", []
            for name, (search, costs) in built.items():
                recall = _recall(search(asked), wanted)
                if name == "ours" and recall < LEAST_RECALL:
                    raise AssertionError(f"{what}: recall {recall:.3f} of ours")
                said.append(f"{name}: {_percentiles(search, asked, queries)}, recall {recall:.3f}, {costs}")
            batches = [asked[start : start + queries] for start in range(0, ASKED, queries)][:8]
            mine, other = (partial(_all, search, batches) for search, _ in built.values())
            ratio = alternate(what, peer, mine, other, rounds, "; ".join(said))
            ours_each, peer_each = ratio.ours_seconds / len(batches), ratio.peer_seconds / len(batches)
            results.append(replace(ratio, ours_seconds=ours_each, peer_seconds=peer_each))
    return results


def _built(engine: Engine, vectors: Vectors, folder: Path) -> tuple[Search, str]:
    """An engine that holds the vectors, and what that took."""
    # Threads and tables of the libraries are there before memory is counted.
    engine(vectors[:256], folder / "first")(vectors[:1])
    made: list[Search] = []
    began = time.perf_counter()
    peak = peak_here(lambda: made.append(engine(vectors, folder / "whole")))
    memory = "" if peak is None else f" with {peak:.0f} MB at most"
    return made[0], f"built in {time.perf_counter() - began:.3g} s{memory}"


def _all(search: Search, batches: list[Vectors]) -> None:
    for batch in batches:
        search(batch)


def _percentiles(search: Search, asked: Vectors, queries: int) -> str:
    seconds = []
    for call in range(CALLS if queries == 1 else max(2, CALLS // 10)):
        start = call * queries % ASKED
        began = time.perf_counter()
        search(asked[start : start + queries])
        seconds.append(1e3 * (time.perf_counter() - began))
    p50, p99 = statistics.median(seconds), float(np.percentile(seconds, 99))
    return f"p50 {p50:.3g} ms, p99 {p99:.3g} ms"


def _recall(found: Ids, wanted: Ids) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, wanted, strict=True)]))


def data(count: int, width: int) -> tuple[Vectors, Vectors]:
    """Unit vectors `[count, width]` in clusters of some 300, and `[64, width]` queries of the same kind."""
    rng = np.random.default_rng(count + width)
    centres = rng.standard_normal((max(1, count // 300), width), dtype=np.float32)

    def drawn(number: int) -> Vectors:
        rows = rng.standard_normal((number, width), dtype=np.float32)
        rows *= CLUSTERED
        rows += centres[rng.integers(len(centres), size=number)]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return drawn(count), drawn(ASKED)


def exact(vectors: Vectors, asked: Vectors) -> Ids:
    """The true order, a slice of the vectors at a time."""
    scores, rows = np.zeros((len(asked), 0), dtype=np.float32), np.zeros((len(asked), 0), dtype=np.int64)
    for start in range(0, len(vectors), 65536):
        part = asked @ vectors[start : start + 65536].T
        scores = np.concatenate([scores, part], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows.tolist()


def ours(vectors: Vectors, folder: Path) -> Search:
    from vlm.index.lance import EXACT_LIMIT, LanceIndex
    from vlm.index.memory import Entries

    if len(vectors) <= EXACT_LIMIT:
        entries = Entries(vectors.shape[1])
        entries.upsert([str(row) for row in range(len(vectors))], vectors, [{}] * len(vectors))
        entries.search(vectors[:ASKED], TOP)
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


PEERS: dict[str, tuple[str, Engine]] = {
    "faiss, flat": ("faiss", partial(_faiss, _faiss_flat)),
    "faiss, HNSW of 32": ("faiss", partial(_faiss, _faiss_hnsw)),
    "LanceDB, scan": ("lancedb", partial(_lance, False)),
    "LanceDB, its index": ("lancedb", partial(_lance, True)),
    "Qdrant, local": ("qdrant_client", _qdrant),
}

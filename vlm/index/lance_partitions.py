"""The index of partitions (IVF, vectors whole) over a table of LanceDB, and how many partitions a search visits.

How many it takes to find the nearest depends on the vectors, so it is measured: some of the table's own vectors are
asked for their neighbours, and the fewest partitions that find `RECALL` of them, doubled, are visited from then on.
Doubled, because queries of another kind (texts, where the vectors are pictures') lie farther from what they look for.
The figure is kept with the table, in the column's metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from lancedb.index import BTree, IvfFlat
from numpy.typing import NDArray

from vlm.index.base import Vectors
from vlm.index.lance_table import vectors

SIZE = 1024
"""Rows of a partition. LanceDB splits and joins partitions towards it as the table changes; where their number is given
instead, it goes towards 8,192 rows all the same."""
GROWN = 4
"""How many times the rows that it was made for an index may hold before it is made anew."""
ASKED, NEIGHBOURS, RECALL = 64, 10, 0.998
LEAST_PROBES, SHARES = 20, (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.4, 1.0)
"""Partitions visited at least, and the shares of them that are tried."""
UNMEASURED = 0.2
BATCH = 8192


@dataclass(frozen=True)
class Partitions:
    """What is known of a table's index: for how many rows it was made, and how many partitions a search visits."""

    rows: int
    probes: int


def of(table: Any) -> Partitions | None:
    """`None` where there is no index of partitions."""
    if _index(table) is None:
        return None
    said = table.schema.field("vector").metadata or {}
    try:
        return Partitions(*(int(said[f"vlm.{name}".encode()]) for name in ("rows", "probes")))
    except (KeyError, ValueError):  # made by a process that was killed before it had measured
        return Partitions(0, max(LEAST_PROBES, int(UNMEASURED * table.count_rows() / SIZE)))


def behind(table: Any) -> int:
    """Rows that the index does not hold; every search scans them."""
    index = _index(table)
    return 0 if index is None else index.num_unindexed_rows or 0


def update(table: Any) -> None:
    """Make the index where there is none or the table has outgrown it, measure it, and keep what was found."""
    rows, known = table.count_rows(), of(table)
    if known is not None and rows <= GROWN * known.rows:
        return
    if known is None:
        table.create_index("id", config=BTree())
    table.create_index("vector", config=IvfFlat(distance_type="dot", target_partition_size=SIZE), replace=True)
    found = {"rows": rows, "probes": _measured(table, rows)}
    said = {f"vlm.{name}": str(number) for name, number in found.items()}
    table.update_field_metadata({"path": "vector", "metadata": said})


def near(table: Any, queries_QD: Vectors, top: int, probes: int | None, columns: list[str]) -> Any:
    """A search that visits so many partitions, and all where that is `None`; to be filtered and read."""
    asked = table.search(list(queries_QD)).distance_type("dot").limit(top).select([*columns, "_distance"])
    # 0 is no bound: LanceDB goes on to other partitions only where those visited hold too few rows.
    return asked.minimum_nprobes(probes or LEAST_PROBES).maximum_nprobes(probes or 0)


def _index(table: Any) -> Any:
    return next((index for index in table.list_indices() if index.columns == ["vector"]), None)


def _measured(table: Any, rows: int) -> int:
    count = -(-rows // SIZE)
    picked = np.random.default_rng(0).choice(rows, size=min(ASKED, rows), replace=False)
    queries = vectors(table.take_offsets(sorted(picked.tolist())).select(["vector"]).to_arrow())
    top = min(NEIGHBOURS + 1, rows)  # each finds itself first
    least = _scores_of_nearest(table, queries, top)
    for share in SHARES:
        probes = min(count, max(LEAST_PROBES, int(share * count)))
        hits = 0
        # One at a time: a batch holds what the index does not have yet once for each query.
        for query, score in zip(queries, least, strict=True):
            found = near(table, query[None], top, probes, ["vector"]).to_arrow()
            hits += int((vectors(found) @ query >= score - 1e-6).sum())
        if hits >= RECALL * top * len(queries):
            break
    return min(count, 2 * probes)


def _scores_of_nearest(table: Any, queries_QD: Vectors, top: int) -> NDArray[np.float32]:
    """Of each query the exact score of the last of its `top` nearest, `[Q]`, from one pass over the table."""
    best_Qk = np.full((len(queries_QD), top), -np.inf, dtype=np.float32)
    for batch in table.search().select(["vector"]).to_batches(BATCH):
        scores = np.concatenate([best_Qk, queries_QD @ vectors(batch).T], axis=1)
        best_Qk = -np.partition(-scores, top - 1, axis=1)[:, :top]
    return best_Qk.min(axis=1)

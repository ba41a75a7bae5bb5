"""Searches of a table of LanceDB that memory does not hold: by vector, and by words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from vlm.index import lance_partitions as partitions
from vlm.index import lance_table as tables
from vlm.index.base import Hit, Vectors, Where
from vlm.index.exact import plain
from vlm.index.filters import compiled
from vlm.index.lance_partitions import Partitions

FILTERED = 3
"""Times as many partitions are visited by a filtered search."""

Ask = Callable[[int, bool], list[list[Hit]]]
"""How many hits, and whether of all partitions."""


def nearest(
    table: Any, queries_QD: Vectors, top: int, where: Where | None, known: Partitions | None, *, indexed_only: bool
) -> list[list[Hit]]:
    """Of each query. `indexed_only` leaves out rows that the partitions do not hold, which LanceDB would scan."""
    if not len(queries_QD):
        return []
    sql = tables.at_least(where)
    probes = None if known is None else known.probes * (1 if where is None else FILTERED)

    def ask(count: int, everywhere: bool) -> list[list[Hit]]:
        columns = ["id", "vector", "metadata"]
        asked = partitions.near(table, queries_QD, count, None if everywhere else probes, columns)
        asked = asked if sql is None else asked.where(sql, prefilter=True)
        found = (asked.fast_search() if indexed_only else asked).to_arrow()
        of = found["query_index"].to_numpy() if "query_index" in found.column_names else np.zeros(len(found))
        return [_scored(query, found.filter(of == q)) for q, query in enumerate(queries_QD)]

    return _enough(ask, top, where)


def by_words(table: Any, query: str, top: int, where: Where | None) -> list[Hit]:
    """Best first by BM25 of the column `text`, which is the score."""
    sql = tables.at_least(where)

    def ask(count: int, everywhere: bool) -> list[list[Hit]]:
        asked = table.search(query, query_type="fts", fts_columns="text").limit(count)
        asked = asked.select(["id", "metadata", "_score"])
        found = (asked if sql is None else asked.where(sql, prefilter=True)).to_list()
        return [[Hit(row["id"], row["_score"], json.loads(row["metadata"])) for row in found]]

    return _enough(ask, top, where)[0]


def joined(newer: list[Hit], older: list[Hit], top: int) -> list[Hit]:
    """The best of both, the newer where both have an id."""
    known = {hit.id for hit in newer}
    return sorted([*newer, *(hit for hit in older if hit.id not in known)], key=lambda hit: -hit.score)[:top]


def _enough(ask: Ask, top: int, where: Where | None) -> list[list[Hit]]:
    """Ask for more, and everywhere, until enough fit or no more are there: LanceDB's filter passes more than ours."""
    fits = compiled(where)
    count, everywhere = top if where is None else 2 * top, False
    while True:
        found = ask(count, everywhere)
        hits = [[hit for hit in some if fits(hit.metadata)][:top] for some in found]
        short = [len(some) for kept, some in zip(hits, found, strict=True) if len(kept) < top]
        if not short or (everywhere and max(short) < count):
            return hits
        everywhere, count = True, count * 4 if max(short) >= count else count


def _scored(query_D: Vectors, found: Any) -> list[Hit]:
    """Rows as hits, scored as the exact scan scores them."""
    ids, vectors, metadata = tables.content(found)
    scores = plain(vectors, query_D)
    return [Hit(ids[row], float(scores[row]), metadata[row]) for row in np.argsort(-scores, kind="stable")]

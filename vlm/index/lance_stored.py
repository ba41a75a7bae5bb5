"""A table of LanceDB as memory would give it: what `memory.Entries` reads, read from the table.

Its index of partitions is behind what is written: `recent` are the entries that it may not hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from vlm.index import lance_partitions as partitions
from vlm.index import lance_table as tables
from vlm.index.base import Hit, Metadata, Vectors, Where
from vlm.index.filters import compiled
from vlm.index.lance_changes import STATEMENT
from vlm.index.lance_recent import Recent
from vlm.index.lance_search import by_words, joined, nearest

Answer = TypeVar("Answer")


class Stored:
    """For reading; any thread may."""

    def __init__(self, place: str, table: Any, width: int):
        self._place, self._table, self._width = place, table, width
        self._partitions: partitions.Partitions | None = None
        self._recent: Recent | None = None

    def look(self) -> bool:
        """What index there is; whether every entry is in it."""
        self._partitions = partitions.of(self._table)
        behind = self._partitions is None or partitions.behind(self._table) > 0
        self._recent = None if behind else Recent(self._width, complete=True)
        return not behind

    def begun(self) -> int:
        """The index is about to be made or updated: what is written from now on may not be in it."""
        if self._recent is None:
            self._recent = Recent(self._width, complete=False)
        return self._recent.mark()

    def done(self, mark: int) -> None:
        """It holds what was there at the mark."""
        if self._recent is not None:
            self._recent.forget(mark)
        self._partitions = partitions.of(self._table)

    def wrote(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata]) -> None:
        if self._recent is not None:
            self._recent.upsert(ids, vectors, metadata)

    def deleted(self, ids: Sequence[str]) -> None:
        if self._recent is not None:
            self._recent.delete(ids)

    def __len__(self) -> int:
        return self._read(self._table.count_rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._read(lambda: self._table.search().select(["id"]).to_arrow()["id"].to_pylist()))

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._read(lambda: self._table.count_rows(tables.any_of([id]))) > 0

    def metadata(self, id: str) -> Metadata:
        return self._entry(id)[1]

    def vector(self, id: str) -> Vectors:
        return self._entry(id)[0]

    def items(self) -> Iterator[tuple[str, Metadata]]:
        return self._rows(None)

    def known(self, ids: Sequence[str]) -> dict[str, Metadata]:
        parts = [ids[start : start + STATEMENT] for start in range(0, len(ids), STATEMENT)]
        return {id: row for part in parts for id, row in self._rows(tables.any_of(part))}

    def vectors(self) -> tuple[list[str], Vectors]:
        found = self._read(lambda: self._table.search().select(["id", "vector"]).to_arrow())
        return found["id"].to_pylist(), tables.vectors(found)

    def count(self, where: Where | None) -> int:
        fits = compiled(where)
        return len(self) if where is None else sum(fits(row) for _, row in self._rows(tables.at_least(where)))

    def search(
        self, queries: Vectors, top: int, where: Where | None = None, min_score: float | None = None
    ) -> list[list[Hit]]:
        compiled(where)
        recent = self._recent
        fast = recent is not None and recent.complete
        # The recent first: what moves into the index meanwhile is then found twice, and not missed.
        newer = recent.search(queries, top, where) if recent is not None else [[]] * len(queries)
        older = self._read(partial(nearest, self._table, queries, top, where, self._partitions, indexed_only=fast))
        hits = [joined(new, old, top) for new, old in zip(newer, older, strict=True)]
        return [[hit for hit in some if min_score is None or hit.score >= min_score] for some in hits]

    def search_text(self, query: str, top: int, where: Where | None) -> list[Hit]:
        return self._read(partial(by_words, self._table, query, top, where))

    def _entry(self, id: str) -> tuple[Vectors, Metadata]:
        found = self._read(lambda: self._table.search().where(tables.any_of([id])).limit(1).to_arrow())
        _, vectors, metadata = tables.content(found)
        if not metadata:
            raise KeyError(id)
        return vectors[0], metadata[0]

    def _rows(self, sql: str | None) -> Iterator[tuple[str, Metadata]]:
        asked = self._table.search().select(["id", "metadata"])
        found = self._read((asked if sql is None else asked.where(sql)).to_arrow)
        for batch in found.to_batches():
            yield from zip(batch["id"].to_pylist(), map(json.loads, batch["metadata"].to_pylist()), strict=True)

    def _read(self, ask: Callable[[], Answer]) -> Answer:
        """Once more where a compaction took the files that were being read."""
        try:
            return ask()
        except Exception:
            with tables.told(self._place):
                return ask()

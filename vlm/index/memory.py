"""Entries in memory: what the flat index is, and what keeps the embedded one exact while it is small.

N entries, Q queries, C candidates, D width.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from vlm.index.base import Hit, Metadata, Vectors, Where
from vlm.index.exact import FEW, Mask, Rough, Rows, best, plain
from vlm.index.filters import compiled

SMALL = 4096
"""Entries times queries up to which the plain scan is as quick as any."""
SLACK = 0.25
"""Removed rows are kept, masked, until they are more than this share."""


class Entries:
    """Ids, vectors and metadata, searched exactly. Any thread may call it; a change is seen whole or not at all."""

    _ids: list[str | None]
    """Of each row; `None` for one that was removed, a gap."""
    _metadata: list[Metadata]
    _row: dict[str, int]
    _gaps: list[int]
    _buffer: Vectors
    """float32 `[capacity, D]`."""
    _rough: Rough | None
    """Made by the first search that wants it."""

    def __init__(self, width: int):
        self.width = width
        self._lock = threading.RLock()
        self._clear(0)

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[str]:
        """Ids in order of insertion, those at the time of the call."""
        with self._lock:
            return iter([id for id in self._ids if id is not None])

    def __contains__(self, id: object) -> bool:
        return id in self._row

    def metadata(self, id: str) -> Metadata:
        with self._lock:
            return self._metadata[self._row[id]]

    def vector(self, id: str) -> Vectors:
        with self._lock:
            return self._buffer[self._row[id]].copy()

    def items(self) -> Iterator[tuple[str, Metadata]]:
        with self._lock:
            return iter([(id, self._metadata[row]) for id, row in self._row.items()])

    def known(self, ids: Sequence[str]) -> dict[str, Metadata]:
        with self._lock:
            return {id: self._metadata[self._row[id]] for id in ids if id in self._row}

    def vectors(self) -> tuple[list[str], Vectors]:
        ids, vectors, _ = self.all()
        return ids, vectors

    def all(self) -> tuple[list[str], Vectors, list[Metadata]]:
        """Ids, `[N, D]` and metadata, in order of insertion."""
        with self._lock:
            self._close_gaps()
            return list(self._row), self._buffer[: len(self)].copy(), list(self._metadata)

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata]) -> None:
        """Add or replace entries that were checked."""
        with self._lock:
            self._reserve(len(self._ids) + len(ids))
            rows = np.empty(len(ids), dtype=np.int64)
            for i, id in enumerate(ids):
                rows[i] = row = self._row.setdefault(id, len(self._ids))
                if row == len(self._ids):
                    self._ids.append(id)
                    self._metadata.append({})
                self._metadata[row] = metadata[i]
            # The last of an id that is there twice counts, as in the metadata.
            last = np.array(sorted({row: i for i, row in enumerate(rows.tolist())}.values()), dtype=np.int64)
            self._buffer[rows[last]] = vectors[last]
            if self._rough is not None:
                self._rough.write(rows[last], vectors[last], len(self._buffer))

    def delete(self, ids: Sequence[str]) -> int:
        with self._lock:
            before = len(self)
            for id in ids:
                if (row := self._row.pop(id, None)) is not None:
                    self._ids[row], self._metadata[row] = None, {}
                    self._gaps.append(row)
            if len(self._gaps) > SLACK * len(self._ids):
                self._close_gaps()
            return before - len(self)

    def count(self, where: Where | None) -> int:
        fits = compiled(where)
        with self._lock:
            return len(self) if where is None else sum(fits(self._metadata[row]) for row in self._row.values())

    def search(
        self, queries: Vectors, top: int, where: Where | None = None, min_score: float | None = None
    ) -> list[list[Hit]]:
        """The best of each query `[Q, D]`, ties in order of insertion; a batch gives what single calls give."""
        allowed: Mask | None = None
        fits = compiled(where)
        with self._lock:
            if where is not None:
                allowed = np.zeros(len(self._ids), dtype=np.bool_)
                allowed[[row for row in self._row.values() if fits(self._metadata[row])]] = True
            elif self._gaps:
                allowed = np.ones(len(self._ids), dtype=np.bool_)
                allowed[self._gaps] = False
            return [self._hits(*found, min_score) for found in self._nearest(queries, top, allowed)]

    def _nearest(self, queries: Vectors, top: int, allowed: Mask | None) -> list[tuple[Rows, Vectors]]:
        count = len(self._ids)
        everything = np.arange(count) if allowed is None else np.flatnonzero(allowed)
        top = min(top, len(everything))
        if top == 0:
            return [(everything[:0], queries[:0, 0])] * len(queries)
        some: list[Rows | None] = [None] * len(queries)
        if count * len(queries) > SMALL and len(everything) > FEW * count:
            some = self._rounded().candidates(queries, count, top, allowed)
        slow = any(rows is None for rows in some)
        whole = self._buffer[everything] if slow and allowed is not None else self._buffer[:count]
        return [
            best(plain(whole, query), everything, top)
            if rows is None
            else best(plain(self._buffer[rows], query), rows, top)
            for query, rows in zip(queries, some, strict=True)
        ]

    def _rounded(self) -> Rough:
        if self._rough is None:
            self._rough = Rough(self.width)
            self._rough.write(np.arange(len(self._buffer)), self._buffer, len(self._buffer))
        return self._rough

    def _hits(self, rows: Rows, scores: Vectors, min_score: float | None) -> list[Hit]:
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [
            Hit(str(self._ids[row]), score, self._metadata[row])
            for row, score in pairs
            if min_score is None or score >= min_score
        ]

    def _clear(self, capacity: int) -> None:
        self._ids, self._metadata, self._row, self._gaps = [], [], {}, []
        self._buffer = np.zeros((capacity, self.width), dtype=np.float32)
        self._rough = None

    def _close_gaps(self) -> None:
        if self._gaps:
            ids, rows = list(self._row), list(self._row.values())
            vectors, metadata = self._buffer[rows], [self._metadata[row] for row in rows]
            self._clear(len(ids))
            self.upsert(ids, vectors, metadata)

    def _reserve(self, count: int) -> None:
        """Room for `count` rows; grown by half at least, so that many small upserts stay cheap."""
        if count > len(self._buffer):
            grown = np.zeros((max(count, len(self._buffer) * 3 // 2), self.width), dtype=np.float32)
            grown[: len(self._ids)] = self._buffer[: len(self._ids)]
            self._buffer = grown

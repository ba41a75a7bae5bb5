"""The embedded index: a table of LanceDB in a folder or on object storage, held exactly in memory while it is small.

Up to `exact_limit` entries, searches are exact scans of memory. Beyond, an index of partitions (IVF, vectors whole) is
built in the background; memory answers until it is there and is given back then. What is written later stays in memory
beside it until maintenance takes it in, so that a search sees every entry at once.

While memory answers, `commit` writes changes: one version of the table for what was upserted, one for what was deleted,
each there as a whole or not at all. Beyond, every call writes its own. What was written outlives the process; LanceDB
does not force the disk, so a power cut is the system's affair. Any thread may read while another writes. One process
writes at a time; others see what was there when they opened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from lancedb.index import FTS

from vlm.errors import BadInput
from vlm.index import checks
from vlm.index import lance_table as tables
from vlm.index.base import Hit, Index, Metadata, Vectors, Where
from vlm.index.filters import compiled
from vlm.index.fusion import fused
from vlm.index.lance_changes import Changes
from vlm.index.lance_stored import Stored
from vlm.index.lance_upkeep import Upkeep
from vlm.index.lock import WriterLock
from vlm.index.memory import Entries

EXACT_LIMIT = 100_000


class LanceIndex(Index):
    """Of a folder, or of `s3://bucket/prefix` with LanceDB's storage options."""

    def __init__(self, place: str, table: Any, width: int, model: str, exact_limit: int, snapshot: str | None = None):
        self.place, self.width, self.model, self.exact_limit = place, width, model, exact_limit
        self._table, self._frozen = table, snapshot
        self._writing = threading.RLock()
        self._lock = WriterLock(None if tables.remote(place) else Path(place) / "writer.lock")
        self._changes = Changes(table, model)
        self._upkeep = Upkeep(table, exact_limit, self._begun, self._done, self._writing)
        self._memory: Entries | None = None
        self._stored = Stored(place, table, width)
        self._load()

    @classmethod
    def create(
        cls,
        place: str | Path,
        width: int,
        model: str,
        *,
        storage_options: Mapping[str, str] | None = None,
        exact_limit: int = EXACT_LIMIT,
    ) -> LanceIndex:
        """An empty index, at once on disk. Raises `BadInput` where something else is there already."""
        table = tables.create(str(place), width, model, storage_options)
        return cls(str(place), table, width, model, exact_limit)

    @classmethod
    def open(
        cls,
        place: str | Path,
        *,
        model: str | None = None,
        width: int | None = None,
        snapshot: str | None = None,
        storage_options: Mapping[str, str] | None = None,
        exact_limit: int = EXACT_LIMIT,
    ) -> LanceIndex:
        """The index at `place`, or as it was at a snapshot, which cannot be changed.

        Raises `BadInput` where there is none, where it is damaged, or where its model or width is not the one given.
        """
        table, found, of = tables.open_table(str(place), storage_options, snapshot)
        checks.same(place, of, found, model, width)
        return cls(str(place), table, found, of, exact_limit, snapshot)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, id: object) -> bool:
        return id in self._entries

    def metadata(self, id: str) -> Metadata:
        return self._entries.metadata(id)

    def vector(self, id: str) -> Vectors:
        return self._entries.vector(id)

    def items(self) -> Iterator[tuple[str, Metadata]]:
        return self._entries.items()

    def known(self, ids: Sequence[str]) -> dict[str, Metadata]:
        return self._entries.known(ids)

    def vectors(self) -> tuple[list[str], Vectors]:
        return self._entries.vectors()

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata] | None = None) -> None:
        vectors, texts = checks.entries(self.place, self.width, ids, vectors, metadata)
        with self._changing():
            self._changes.upsert(ids, vectors, texts)
            rows = [json.loads(text) for text in texts]
            self._stored.wrote(ids, vectors, rows)
            if self._memory is not None:
                self._memory.upsert(ids, vectors, rows)
            else:
                self._write()

    def delete(self, ids: Sequence[str]) -> int:
        with self._changing():
            self._stored.deleted(ids)
            if self._memory is None:
                self._changes.delete(ids)
                return self._write()
            self._changes.delete([id for id in ids if id in self._memory])
            return self._memory.delete(ids)

    def search(
        self, vectors: Vectors, top: int, *, where: Where | None = None, min_score: float | None = None
    ) -> list[list[Hit]]:
        queries = checks.queries(self.place, self.width, vectors, top)
        return self._entries.search(queries, top, where, min_score)

    def search_text(self, query: str, top: int, *, where: Where | None = None) -> list[Hit]:
        """The entries whose metadata's `text` has the query's words, best first by BM25, which is their score."""
        compiled(where)
        self._index_words()
        return self._stored.search_text(query, top, where)

    def search_hybrid(self, vector: Vectors, text: str, top: int, *, where: Where | None = None) -> list[Hit]:
        """By a vector `[D]` and by words, the two orders joined by reciprocal rank fusion, whose score it is."""
        near = self.search(np.asarray(vector)[None], max(top, 50), where=where)[0]
        return fused([near, self.search_text(text, max(top, 50), where=where)])[:top]

    def count(self, where: Where | None = None) -> int:
        return self._entries.count(where)

    def commit(self) -> None:
        with self._changing():
            self._write()

    def snapshot(self) -> str:
        with self._changing():
            self._write()
            name = f"s{self._table.version}"
            if name not in self._table.tags.list():
                self._table.tags.create(name, self._table.version)
            return name

    def snapshots(self) -> list[str]:
        with tables.told(self.place):
            return sorted(self._table.tags.list(), key=lambda name: (len(name), name))  # s9 before s10

    def drop_snapshot(self, name: str) -> None:
        """Its versions go with the next upkeep."""
        if name not in self.snapshots():
            raise KeyError(name)
        with self._changing():
            self._table.tags.delete(name)

    def compact(self) -> None:
        """Searches of other processes that have this index open fail after this; no other process may be writing."""
        self.wait()
        with self._changing():
            self._write()
            for name in self._table.tags.list():
                self._table.tags.delete(name)
            # Just over nothing: of nothing itself LanceDB warns, of what the docstring says.
            self._table.optimize(cleanup_older_than=timedelta(microseconds=1000), delete_unverified=True)

    def wait(self) -> None:
        """Until background work is done."""
        self._upkeep.wait()

    def close(self) -> None:
        """Waits for background work; another process may write afterwards. What was not committed is dropped."""
        self.wait()
        self._lock.release()
        self._memory = Entries(self.width)

    def _load(self) -> None:
        with tables.told(self.place):
            if self._table.count_rows() > self.exact_limit:
                self._memory = None
                if not self._stored.look() and self._frozen is None:
                    self._upkeep.begin()
                return
            memory = Entries(self.width)
            memory.upsert(*tables.content(self._table.to_arrow()))
            self._memory = memory

    @property
    def _entries(self) -> Entries | Stored:
        """Where they are read."""
        memory = self._memory
        return self._stored if memory is None else memory

    def _changing(self) -> _Change:
        checks.changeable(self.place, self._frozen)
        return _Change(self)

    def _write(self) -> int:
        written, gone = self._changes.write()
        if written or gone:
            self._upkeep.written(written)
        return gone

    def _begun(self) -> int:
        with self._writing:
            self._changes.write()
            return self._stored.begun()

    def _done(self, mark: int) -> None:
        """The index of partitions holds what was there when it was begun: memory is given back."""
        with self._writing:
            self._changes.write()
            self._stored.done(mark)
            self._memory = None

    def _index_words(self) -> None:
        """Full text search reads the table: what is not written yet is written first."""
        with self._writing, tables.told(self.place):
            self._write()
            if not tables.indexed(self._table, "text"):
                if self._frozen is not None:
                    raise BadInput(f"{self.place}: snapshot {self._frozen} was taken before its words were indexed")
                self._table.create_index("text", config=FTS())


class _Change:
    """One writer at a time: a thread of this process, and this process of all."""

    def __init__(self, index: LanceIndex):
        self._index = index

    def __enter__(self) -> None:
        index = self._index
        index._writing.acquire()
        try:
            if index._lock.acquire(index.place):
                known = index._table.version
                index._table.checkout_latest()
                if index._table.version != known:  # another process wrote since this one opened
                    index._load()
        except BaseException:
            index._writing.release()
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._index._writing.release()
        if isinstance(error, Exception):
            with tables.told(self._index.place):
                raise error

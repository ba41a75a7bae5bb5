"""The embedded index: a table of LanceDB in a folder or on object storage, held exactly in memory while it is small.

Up to `exact_limit` entries, searches are exact scans of memory. Beyond, an index of partitions (IVF, vectors whole) is
built in the background; memory answers until it is there and is given back then. Entries that came later are scanned
beside it until maintenance takes them in, so that a search sees every entry at once.

While memory answers, `commit` writes changes: one version of the table for what was upserted, one for what was deleted,
each there as a whole or not at all. Beyond, every call writes its own. What was written outlives the process; LanceDB
does not force the disk, so a power cut is the system's affair. Any thread may read while another writes. One process
writes at a time; others see what was there when they opened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from lancedb.index import FTS

from vlm.errors import BadInput
from vlm.index import checks
from vlm.index import lance_partitions as partitions
from vlm.index import lance_table as tables
from vlm.index.base import Hit, Index, Metadata, Vectors, Where
from vlm.index.filters import compiled
from vlm.index.fusion import fused
from vlm.index.lance_changes import Changes
from vlm.index.lance_recent import Recent
from vlm.index.lance_search import by_words, joined, nearest
from vlm.index.lance_upkeep import Upkeep
from vlm.index.lock import WriterLock
from vlm.index.memory import Entries

EXACT_LIMIT = 100_000
Answer = TypeVar("Answer")


class LanceIndex(Index):
    """Of a folder, or of `s3://bucket/prefix` with LanceDB's storage options."""

    def __init__(self, place: str, table: Any, width: int, model: str, exact_limit: int, snapshot: str | None = None):
        self.place, self.width, self.model, self.exact_limit = place, width, model, exact_limit
        self._table, self._frozen = table, snapshot
        self._writing = threading.RLock()
        self._lock = WriterLock(None if tables.remote(place) else Path(place) / "writer.lock")
        self._changes = Changes(table, model)
        self._upkeep = Upkeep(table, exact_limit, self._begun, self._done)
        self._memory: Entries | None = None
        self._partitions: partitions.Partitions | None = None
        self._recent: Recent | None = None
        """Beyond memory what the partitions do not hold, once this process has updated them or begun to."""
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
        return len(memory) if (memory := self._memory) is not None else self._read(lambda: self._table.count_rows())

    def __iter__(self) -> Iterator[str]:
        if (memory := self._memory) is not None:
            return iter(memory)
        return iter(self._read(lambda: self._table.search().select(["id"]).to_arrow()["id"].to_pylist()))

    def __contains__(self, id: object) -> bool:
        if (memory := self._memory) is not None:
            return id in memory
        return isinstance(id, str) and self._read(lambda: self._table.count_rows(tables.any_of([id]))) > 0

    def metadata(self, id: str) -> Metadata:
        return memory.metadata(id) if (memory := self._memory) is not None else self._entry(id)[1]

    def vector(self, id: str) -> Vectors:
        return memory.vector(id) if (memory := self._memory) is not None else self._entry(id)[0]

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata] | None = None) -> None:
        vectors, texts = checks.entries(self.place, self.width, ids, vectors, metadata)
        with self._changing():
            self._changes.upsert(ids, vectors, texts)
            rows = [json.loads(text) for text in texts]
            if self._recent is not None:
                self._recent.upsert(ids, vectors, rows)
            if self._memory is not None:
                self._memory.upsert(ids, vectors, rows)
            else:
                self._write()

    def delete(self, ids: Sequence[str]) -> int:
        with self._changing():
            if self._recent is not None:
                self._recent.delete(ids)
            if self._memory is None:
                self._changes.delete(ids)
                return self._write()
            self._changes.delete([id for id in ids if id in self._memory])
            return self._memory.delete(ids)

    def search(
        self, vectors: Vectors, top: int, *, where: Where | None = None, min_score: float | None = None
    ) -> list[list[Hit]]:
        queries = checks.queries(self.place, self.width, vectors, top)
        if (memory := self._memory) is not None:
            return memory.search(queries, top, where, min_score)
        compiled(where)
        recent = self._recent
        fast = recent is not None and recent.complete
        # The recent first: what moves into the index meanwhile is then found twice, and not missed.
        newer = recent.search(queries, top, where) if recent is not None else [[]] * len(queries)
        older = self._read(partial(nearest, self._table, queries, top, where, self._partitions, indexed_only=fast))
        hits = [joined(new, old, top) for new, old in zip(newer, older, strict=True)]
        return [[hit for hit in some if min_score is None or hit.score >= min_score] for some in hits]

    def search_text(self, query: str, top: int, *, where: Where | None = None) -> list[Hit]:
        """The entries whose metadata's `text` has the query's words, best first by BM25, which is their score."""
        compiled(where)
        self._index_words()
        return self._read(partial(by_words, self._table, query, top, where))

    def search_hybrid(self, vector: Vectors, text: str, top: int, *, where: Where | None = None) -> list[Hit]:
        """By a vector `[D]` and by words, the two orders joined by reciprocal rank fusion, whose score it is."""
        near = self.search(np.asarray(vector)[None], max(top, 50), where=where)[0]
        return fused([near, self.search_text(text, max(top, 50), where=where)])[:top]

    def count(self, where: Where | None = None) -> int:
        if where is None:
            return len(self)
        if (memory := self._memory) is not None:
            return memory.count(where)
        fits, asked = compiled(where), self._table.search().select(["metadata"])
        asked = asked if (sql := tables.at_least(where)) is None else asked.where(sql)
        return sum(fits(json.loads(text)) for text in self._read(asked.to_arrow)["metadata"].to_pylist())

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
                self._partitions, self._memory = partitions.of(self._table), None
                behind = self._partitions is None or partitions.behind(self._table) > 0
                self._recent = None if behind else Recent(self.width, complete=True)
                if self._frozen is None and behind:
                    self._upkeep.begin()
                return
            memory = Entries(self.width)
            memory.upsert(*tables.content(self._table.to_arrow()))
            self._memory = memory

    def _changing(self) -> _Change:
        checks.changeable(self.place, self._frozen)
        return _Change(self)

    def _write(self) -> int:
        written, gone = self._changes.write()
        if written or gone:
            self._upkeep.written(written)
        return gone

    def _entry(self, id: str) -> tuple[Vectors, Metadata]:
        found = self._read(lambda: self._table.search().where(tables.any_of([id])).limit(1).to_arrow())
        _, vectors, metadata = tables.content(found)
        if not metadata:
            raise KeyError(id)
        return vectors[0], metadata[0]

    def _read(self, ask: Callable[[], Answer]) -> Answer:
        """Once more where a compaction took the files that were being read."""
        try:
            return ask()
        except Exception:
            with tables.told(self.place):
                return ask()

    def _begun(self) -> int:
        """The index of partitions is about to be made or updated: what is written from now on may not be in it."""
        with self._writing:
            self._changes.write()
            if self._recent is None:
                self._recent = Recent(self.width, complete=False)
            return self._recent.mark()

    def _done(self, mark: int) -> None:
        """It holds what was there at the mark. Memory is given back."""
        with self._writing:
            self._changes.write()
            if self._recent is not None:
                self._recent.forget(mark)
            self._partitions, self._memory = partitions.of(self._table), None

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

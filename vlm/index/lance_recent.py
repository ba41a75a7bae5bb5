"""Entries that a table has and its index of partitions does not, in memory: LanceDB would scan them from disk, query by
query."""

from __future__ import annotations

from collections.abc import Sequence

from vlm.index.base import Hit, Metadata, Vectors, Where
from vlm.index.memory import Entries


class Recent:
    """Any thread may search; one at a time writes."""

    def __init__(self, width: int, *, complete: bool):
        self.complete = complete
        """Whether these are all of them. It is not known of a table that was opened, until its index is updated."""
        self._entries = Entries(width)
        self._turn: dict[str, int] = {}
        self._now = 0

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata]) -> None:
        self._entries.upsert(ids, vectors, metadata)
        self._turn.update(dict.fromkeys(ids, self._now))

    def delete(self, ids: Sequence[str]) -> None:
        self._entries.delete(ids)
        for id in ids:
            self._turn.pop(id, None)

    def search(self, queries_QD: Vectors, top: int, where: Where | None) -> list[list[Hit]]:
        return self._entries.search(queries_QD, top, where)

    def mark(self) -> int:
        """A point in time, before an update of the index begins."""
        self._now += 1
        return self._now

    def forget(self, mark: int) -> None:
        """What was written before the mark is in the index now."""
        self.delete([id for id, turn in self._turn.items() if turn < mark])
        self.complete = True

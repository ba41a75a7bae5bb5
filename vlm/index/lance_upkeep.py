"""What a table of LanceDB wants now and then, in the background: small files gathered, indexes brought up to date."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from vlm.index import lance_partitions as partitions

WRITES, ROWS = 256, 20_000
"""After so many writes, or so many rows written that the index of partitions does not hold, upkeep begins."""
KEPT = timedelta(minutes=10)
"""How long old versions are left to other processes that read them."""
TRIES = 8
Done = TypeVar("Done")


class Upkeep:
    """Of one table. Where it has more than `limit` rows, `begun` is called before its index of partitions is brought up
    to date, and `done` after, with what `begun` gave."""

    def __init__(
        self, table: Any, limit: int, begun: Callable[[], int], done: Callable[[int], None], writing: threading.RLock
    ):
        """`writing` is held by whoever writes."""
        self._table, self._limit, self._begun, self._done, self._writing = table, limit, begun, done, writing
        self._writes: int | None = None
        """Not known before the first write: those of other processes, which were killed perhaps, count too."""
        self._rows = 0
        self._partitioned = partitions.of(table) is not None
        self._thread: threading.Thread | None = None

    def written(self, rows: int) -> None:
        """Count a write of so many rows, and begin where it is time. Called by one thread at a time."""
        before = versions(self._table) if self._writes is None else self._writes
        self._writes, self._rows = before + 1, self._rows + rows
        due = self._rows >= ROWS if self._partitioned else self._rows and self._table.count_rows() > self._limit
        if due or self._writes >= WRITES:
            self.begin()

    def begin(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._writes = self._rows = 0
            self._thread = threading.Thread(target=self._run, name="index upkeep", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Until what has begun is done."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            patient(self._all)
            while partitions.behind(self._table) >= ROWS:  # what came meanwhile
                patient(self._all)
        except Exception:
            return  # LanceDB's, of any class; nothing is lost, and the next write that is due begins again

    def _all(self) -> None:
        large = self._table.count_rows() > self._limit
        mark = self._begun() if large else 0
        # Versions that have names are not to go, and LanceDB does not pass over them.
        kept = timedelta(days=36500) if self._table.tags.list() else KEPT
        # A write that comes in between undoes the gathering of files, and under many none would ever be gathered: they
        # wait for it, except where it takes minutes.
        with nullcontext() if large else self._writing:
            self._table.optimize(cleanup_older_than=kept)
        if large:
            partitions.update(self._table)
            self._partitioned = True
            self._done(mark)


def versions(table: Any) -> int:
    """How many a table has; of one in a folder by its files, since to read them all takes seconds."""
    folder = Path(table.uri) / "_versions"
    return len(list(folder.glob("*.manifest"))) if folder.is_dir() else len(table.list_versions())


def patient(do: Callable[[], Done]) -> Done:
    """Once more where upkeep and a write came in each other's way, which LanceDB refuses, nothing being changed."""
    for tried in range(TRIES):
        try:
            return do()
        except Exception as error:
            if tried == TRIES - 1 or "conflict" not in str(error).lower():
                raise
            time.sleep(0.01 * 2**tried)
    raise AssertionError

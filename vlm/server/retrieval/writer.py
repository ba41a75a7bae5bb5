"""Durable changes of one index, committed in groups: what was written while one commit ran goes with the next."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np

from vlm.errors import BadInput, VlmError
from vlm.index.base import Index, Metadata, Vectors, Where
from vlm.server.http.errors import ApiError, log, storage
from vlm.server.retrieval.entries import matching, patched

T = TypeVar("T")
GROUP = 256
"""Changes of one commit at the most."""
Before = list[Metadata | None]
"""Of each id that is changed the metadata it had, None where it was not there."""


@dataclass(frozen=True)
class Upsert:
    ids: Sequence[str]
    vectors: Vectors
    metadata: Sequence[Metadata]


@dataclass(frozen=True)
class Delete:
    ids: Sequence[str]


@dataclass(frozen=True)
class Chosen:
    """Those that are named or fit are deleted, or keys of their metadata changed: found when it is done."""

    ids: Sequence[str] | None
    where: Where | None
    patch: Metadata | None
    most: int = 0
    """Bytes of the metadata afterwards."""


Change = Upsert | Delete | Chosen


@dataclass(frozen=True)
class _Waiting:
    change: Change
    done: asyncio.Future[Before]


class Writer:
    """The only one that changes an index. A search may see a change a moment before it is durable, never half of it."""

    def __init__(self, index: Index, reopen: Callable[[], Index], seen: Callable[[int, float], None]) -> None:
        self.index, self._reopen, self._seen = index, reopen, seen
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "writer")
        self._closed = self._lost = False
        self._task = asyncio.create_task(self._run())

    async def write(self, change: Change) -> Before:
        """What was there, once the change is durable.

        Raises `BadInput` of the index, and `ApiError` 503 where the disk fails.
        """
        if self._closed:
            raise _gone()
        waiting = _Waiting(change, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        # Whoever asked may go; what was accepted is written all the same.
        return await asyncio.shield(waiting.done)

    async def do(self, work: Callable[[Index], T]) -> T:
        """What `work` makes of the index between two commits. Raises what it does, and `ApiError` 503 where the disk
        fails."""
        if self._closed:
            raise _gone()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._worked, work)

    async def close(self) -> None:
        """Finish what was accepted, and close the index."""
        if not self._closed:
            self._closed = True
            self._queue.put_nowait(None)
        await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last = False
        while not last:
            first = await self._queue.get()
            group = [first]
            while not self._queue.empty() and len(group) < GROUP:
                group.append(self._queue.get_nowait())
            last = None in group
            waiting = [one for one in group if one is not None]
            if waiting:
                results = await loop.run_in_executor(self._thread, self._apply, [one.change for one in waiting])
                for one, result in zip(waiting, results, strict=True):
                    if isinstance(result, Exception):
                        one.done.set_exception(result)
                        one.done.exception()  # whoever asked may have gone
                    else:
                        one.done.set_result(result)
        await loop.run_in_executor(self._thread, self.index.close)
        self._thread.shutdown()

    def _worked(self, work: Callable[[Index], T]) -> T:
        try:
            if self._lost:
                self._recover()
            return work(self.index)
        except BadInput:
            raise
        except (OSError, VlmError) as error:
            log.error("an index could not be worked on: %s", " ".join(str(error).split()))
            raise storage() from None

    def _apply(self, changes: list[Change]) -> list[Before | Exception]:
        """What was there before each, or why it could not be made."""
        began = time.monotonic()
        results: list[Before | Exception] = []
        try:
            if self._lost:
                self._recover()
            results += self._made(changes)
            self.index.commit()
        except Exception as error:  # a full disk, say: nobody is told that anything was written
            log.error("changes could not be committed: %s", " ".join(str(error).split()))
            with suppress(Exception):  # where not even that goes, the next change tries again
                self._recover()
                return self._deletes_alone(changes, began)
            return [storage() for _ in changes]
        self._seen(len(changes), time.monotonic() - began)
        return results

    def _deletes_alone(self, changes: list[Change], began: float) -> list[Before | Exception]:
        """A full disk takes nothing more, but it can be emptied."""
        results: list[Before | Exception] = [storage() for _ in changes]
        deletes = [number for number, change in enumerate(changes) if _frees(change)]
        if not 0 < len(deletes) < len(changes):  # they were tried alone
            return results
        try:
            found = self._made([changes[number] for number in deletes])
            self.index.commit()
        except Exception:
            self._recover()
            return results
        self._seen(len(deletes), time.monotonic() - began)
        for number, result in zip(deletes, found, strict=True):
            results[number] = result
        return results

    def _recover(self) -> None:
        """The index as it is on disk, without what could not be committed."""
        self._lost, before = True, self.index
        self.index, self._lost = self._reopen(), False  # searches go on in either
        before.close()

    def _made(self, changes: list[Change]) -> list[Before | Exception]:
        results: list[Before | Exception] = []
        for kind, run in groupby(changes, type):
            if kind is Chosen:
                results += [self._of_chosen(change) for change in run if isinstance(change, Chosen)]
            else:
                results += self._run_of([change for change in run if not isinstance(change, Chosen)])
        return results

    def _of_chosen(self, change: Chosen) -> Before | Exception:
        try:
            rows = matching(self.index, change.ids, change.where)
            if change.patch is None:
                self.index.delete(list(rows))
            elif rows:
                after = [patched(row, change.patch) for row in rows.values()]
                if (size := max(map(_size, after))) > change.most:
                    raise BadInput(f"metadata: expected at most {change.most} bytes of JSON, got {size}")
                self.index.upsert(list(rows), np.stack([self.index.vector(id) for id in rows]), after)
        except BadInput as error:
            return error
        return list(rows.values())

    def _run_of(self, changes: list[Upsert | Delete]) -> list[Before | Exception]:
        """Changes of one kind at once, since an engine takes as long for many as for one; one by one if refused."""
        try:
            return list(self._together(changes))
        except BadInput as error:
            if len(changes) == 1:
                return [error]
            return [result for change in changes for result in self._run_of([change])]

    def _together(self, changes: list[Upsert | Delete]) -> list[Before]:
        known = self.index.known(list({id for change in changes for id in change.ids}))
        after: dict[str, tuple[Vectors, Metadata] | None] = {}
        results = []
        for change in changes:
            before: Before = []
            for number, id in enumerate(change.ids):
                row = after.get(id)
                before.append((row[1] if row else None) if id in after else known.get(id))
                after[id] = (change.vectors[number], change.metadata[number]) if isinstance(change, Upsert) else None
            results.append(before)
        rows = [row for row in after.values() if row is not None]
        if rows:
            self.index.upsert(list(after), np.stack([vector for vector, _ in rows]), [row for _, row in rows])
        else:
            self.index.delete(list(after))
        return results


def _gone() -> ApiError:
    return ApiError(409, "gone", "the collection is being deleted or the server shut down")


def _frees(change: Change) -> bool:
    """Whether it makes the index smaller."""
    return isinstance(change, Delete) or (isinstance(change, Chosen) and change.patch is None)


def _size(metadata: Metadata) -> int:
    """Bytes of what is the caller's own."""
    return len(json.dumps({key: value for key, value in metadata.items() if not key.startswith("_")}).encode())

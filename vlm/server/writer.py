"""Durable changes of one index, committed in groups: what was written while one commit ran goes with the next."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from vlm.errors import BadInput
from vlm.index.base import Index
from vlm.server.errors import ApiError, log

T = TypeVar("T")
GROUP = 256
"""Changes of one commit at the most."""


@dataclass(frozen=True)
class _Change:
    work: Callable[[Index], Any]
    done: asyncio.Future[Any]


class Writer:
    """The only one that changes an index. A search may see a change a moment before it is durable, never half of it."""

    def __init__(self, index: Index, reopen: Callable[[], Index], seen: Callable[[int, float], None]) -> None:
        self.index, self._reopen, self._seen = index, reopen, seen
        self.lock = threading.Lock()
        """Held while the index is searched or changed; a commit changes nothing that a search reads."""
        self._queue: asyncio.Queue[_Change | None] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "writer")
        self._closed = False
        self._task = asyncio.create_task(self._run())

    async def write(self, work: Callable[[Index], T]) -> T:
        """What `work` gives, once it is durable. Raises what it raises, and `ApiError` 503 where the disk fails."""
        if self._closed:
            raise ApiError(409, "gone", "the collection is being deleted or the server shut down")
        change = _Change(work, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(change)
        # Whoever asked may go; what was accepted is written all the same.
        return await asyncio.shield(change.done)

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
            changes = [change for change in group if change is not None]
            if changes:
                results = await loop.run_in_executor(self._thread, self._apply, [change.work for change in changes])
                for change, result in zip(changes, results, strict=True):
                    if isinstance(result, Exception):
                        change.done.set_exception(result)
                        change.done.exception()  # whoever asked may have gone
                    else:
                        change.done.set_result(result)
        await loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _apply(self, works: list[Callable[[Index], Any]]) -> list[Any]:
        """Each one's result or exception."""
        began = time.monotonic()
        results = []
        try:
            for work in works:
                with self.lock:
                    try:
                        results.append(work(self.index))
                    except (BadInput, ApiError) as error:
                        results.append(error)
            self.index.commit()
        except Exception as error:  # a full disk, say: nobody is told that anything was written
            log.error("changes could not be committed", exc_info=error)
            with self.lock:
                self.index = self._reopen()
            return [ApiError(503, "storage", "the change could not be made durable") for _ in works]
        self._seen(len(works), time.monotonic() - began)
        return results

    def _close(self) -> None:
        with self.lock:
            self.index.close()

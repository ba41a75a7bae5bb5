"""Dynamic batching: what several callers want embedded at the same time is embedded together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from vlm.errors import BadInput
from vlm.index.base import Vectors
from vlm.server.http.errors import ApiError, busy, log

T = TypeVar("T")


@dataclass(frozen=True)
class _Job(Generic[T]):
    item: T
    vector: asyncio.Future[Vectors]


class Batcher(Generic[T]):
    """A queue of at most `capacity` items before `function`, which takes a list and gives `[N, D]`; `observe` is called
    with the size of each batch.

    At most `workers` batches are worked on at a time, in `executor`. While they are, the next one gathers; only where
    nothing is running does the first of a batch wait, `linger` seconds, for company. The patient go after all others.
    """

    def __init__(
        self,
        function: Callable[[Sequence[T]], Vectors],
        *,
        capacity: int,
        batch: int,
        seconds: float,
        executor: Executor,
        workers: int = 1,
        linger: float = 0.002,
        observe: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`seconds` is how long a batch may take once it is begun."""
        self._function, self._capacity, self._batch, self._seconds = function, capacity, batch, seconds
        self._executor, self._linger, self._observe = executor, linger, observe
        self._first: deque[_Job[T]] = deque()
        self._patient: deque[_Job[T]] = deque()
        self._changed = asyncio.Condition()
        self._free = asyncio.Semaphore(workers)
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self.pace = 0.01
        """Seconds an item, lately."""
        self._task = asyncio.create_task(self._run())

    def __len__(self) -> int:
        """Those that wait."""
        return len(self._first) + len(self._patient)

    async def embed(self, items: Sequence[T], *, patient: bool = False) -> Vectors:
        """float32 `[N, D]`. Where the queue is full, `patient` waits for free places; else that is an error of 429.

        Raises `ApiError` 504 where the work takes longer than the limit, 503 while shutting down, and `BadInput` of the
        function.
        """
        jobs: list[_Job[T]] = []
        loop = asyncio.get_running_loop()
        try:
            while len(jobs) < len(items):
                async with self._changed:
                    if patient:
                        await self._changed.wait_for(lambda: self._closed or len(self) < self._capacity)
                    if self._closed:
                        raise ApiError(503, "unavailable", "the server is shutting down")
                    free = self._capacity - (len(self) if patient else len(self._first))
                    if not patient and free < len(items):
                        raise busy(f"{len(self._first)} wait to be embedded", self.pace * len(self._first))
                    new = [_Job(item, loop.create_future()) for item in items[len(jobs) : len(jobs) + free]]
                    (self._patient if patient else self._first).extend(new)
                    jobs += new
                    self._changed.notify_all()
            return np.stack(await asyncio.gather(*(job.vector for job in jobs)))
        finally:
            for job in jobs:  # nobody waits for them any more
                job.vector.cancel()

    async def close(self) -> None:
        """Finish what was accepted."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._free.acquire()
            async with self._changed:
                await self._changed.wait_for(lambda: self._closed or len(self))
            if not len(self):
                break
            if len(self) < self._batch and not self._closed and not self._running:
                await asyncio.sleep(self._linger)
            task = asyncio.create_task(self._begun(await self._taken()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        await asyncio.gather(*self._running)

    async def _taken(self) -> list[_Job[T]]:
        """The next batch; what nobody waits for any more is not in it."""
        jobs: list[_Job[T]] = []
        async with self._changed:
            while len(self) and len(jobs) < self._batch:
                job = (self._first or self._patient).popleft()
                if not job.vector.done():
                    jobs.append(job)
            self._changed.notify_all()
        return jobs

    async def _begun(self, jobs: list[_Job[T]]) -> None:
        try:
            if jobs:
                self._observe(len(jobs))
                began = time.monotonic()
                await self._work(jobs)
                self.pace += 0.2 * ((time.monotonic() - began) / len(jobs) - self.pace)
        finally:
            self._free.release()

    async def _work(self, jobs: list[_Job[T]]) -> None:
        """One batch; where it fails, each by itself, so that one caller's item harms no other's."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._function, [job.item for job in jobs])
        late = asyncio.get_running_loop().call_later(self._seconds, self._late, jobs)
        try:
            rows: Any = await running
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._work([job])
                return
            if not isinstance(error, BadInput):
                log.error("an item could not be embedded", exc_info=error)
                error = ApiError(500, "internal", "the model failed on this input")
            if not jobs[0].vector.done():
                jobs[0].vector.set_exception(error)
            return
        finally:
            late.cancel()
        for job, row in zip(jobs, rows, strict=True):
            if not job.vector.done():
                job.vector.set_result(row)

    def _late(self, jobs: list[_Job[T]]) -> None:
        """Those who wait are told; a thread cannot be interrupted, and is waited for before the next batch."""
        for job in jobs:
            if not job.vector.done():
                job.vector.set_exception(ApiError(504, "timeout", f"not embedded within {self._seconds:g} s"))

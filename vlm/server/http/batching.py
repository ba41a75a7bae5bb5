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

    While one batch is worked on, the next one gathers; only where nothing is running does the first of a batch wait,
    `linger` seconds, for company.
    """

    def __init__(
        self,
        function: Callable[[Sequence[T]], Vectors],
        *,
        capacity: int,
        batch: int,
        seconds: float,
        executor: Executor,
        linger: float = 0.002,
        observe: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._function, self._capacity, self._batch, self._seconds = function, capacity, batch, seconds
        self._executor, self._linger, self._observe = executor, linger, observe
        self._waiting: deque[_Job[T]] = deque()
        self._changed = asyncio.Condition()
        self._closed = False
        self._pace = 0.01
        """Seconds an item, lately."""
        self._task = asyncio.create_task(self._run())

    def __len__(self) -> int:
        return len(self._waiting)

    async def embed(self, items: Sequence[T], *, patient: bool = False) -> Vectors:
        """float32 `[N, D]`. Where the queue is full, `patient` waits for free places; else that is an error of 429.

        Raises `ApiError` 504 after the time limit, 503 while shutting down, and `BadInput` of the function.
        """
        try:
            return await asyncio.wait_for(self._embed(items, patient), self._seconds)
        except asyncio.TimeoutError:
            raise ApiError(504, "timeout", f"not embedded within {self._seconds:g} s") from None

    async def close(self) -> None:
        """Finish what was accepted."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
        await self._task

    async def _embed(self, items: Sequence[T], patient: bool) -> Vectors:
        jobs: list[_Job[T]] = []
        try:
            while len(jobs) < len(items):
                async with self._changed:
                    if patient:
                        await self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._capacity)
                    if self._closed:
                        raise ApiError(503, "unavailable", "the server is shutting down")
                    free = self._capacity - len(self._waiting)
                    if not patient and free < len(items):
                        raise busy(f"{len(self._waiting)} wait to be embedded", self._pace * len(self._waiting))
                    loop = asyncio.get_running_loop()
                    new = [_Job(item, loop.create_future()) for item in items[len(jobs) : len(jobs) + free]]
                    self._waiting.extend(new)
                    jobs += new
                    self._changed.notify_all()
            return np.stack(await asyncio.gather(*(job.vector for job in jobs)))
        finally:
            for job in jobs:  # nobody waits for them any more
                job.vector.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._closed or self._waiting)
                if not self._waiting:
                    return
            if len(self._waiting) < self._batch and not self._closed:
                await asyncio.sleep(self._linger)
            jobs: list[_Job[T]] = []
            async with self._changed:
                while self._waiting and len(jobs) < self._batch:
                    job = self._waiting.popleft()
                    if not job.vector.done():
                        jobs.append(job)
                self._changed.notify_all()
            if jobs:
                self._observe(len(jobs))
                began = time.monotonic()
                await self._work(loop, jobs)
                self._pace += 0.2 * ((time.monotonic() - began) / len(jobs) - self._pace)

    async def _work(self, loop: asyncio.AbstractEventLoop, jobs: list[_Job[T]]) -> None:
        """One batch; where it fails, each by itself, so that one caller's item harms no other's."""
        try:
            rows: Any = await loop.run_in_executor(self._executor, self._function, [job.item for job in jobs])
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._work(loop, [job])
                return
            if not isinstance(error, BadInput):
                log.error("an item could not be embedded", exc_info=error)
                error = ApiError(500, "internal", "the model failed on this input")
            if not jobs[0].vector.done():
                jobs[0].vector.set_exception(error)
            return
        for job, row in zip(jobs, rows, strict=True):
            if not job.vector.done():
                job.vector.set_result(row)

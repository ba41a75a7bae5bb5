"""Requests at the same time are embedded together, within a bounded queue and a bounded time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import error, served, wait

from vlm.errors import BadInput
from vlm.server.embedding.embedder import Colours
from vlm.server.http.batching import Batcher
from vlm.server.http.errors import ApiError
from vlm.server.http.settings import Limits, Settings


class Slow:
    """Embeds numbers as themselves, one batch each time it is let."""

    def __init__(self) -> None:
        self.go, self.batches = threading.Semaphore(0), list[list[int]]()

    def __call__(self, items: Sequence[int]) -> np.ndarray:
        assert self.go.acquire(timeout=10)
        self.batches.append(list(items))
        if -1 in items:
            raise BadInput("no -1")
        if -2 in items:
            raise RuntimeError("a fault of ours")
        return np.array([[item] for item in items], np.float32)


@asynccontextmanager
async def batcher(slow: Slow, **options: Any) -> AsyncIterator[Batcher[int]]:
    with ThreadPoolExecutor(1) as executor:
        made = Batcher(slow, **{"capacity": 8, "batch": 4, "seconds": 10, "executor": executor, **options})
        yield made
        slow.go.release(100)
        await made.close()


async def until(what: Any) -> None:
    for _ in range(1000):
        if what():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


def test_what_waits_goes_together() -> None:
    async def run() -> None:
        slow = Slow()
        async with batcher(slow) as made:
            first = asyncio.create_task(made.embed([0]))
            await asyncio.sleep(0.05)  # it is being worked on
            rest = [asyncio.create_task(made.embed([n])) for n in range(1, 7)]
            await until(lambda: len(made) == 6)
            slow.go.release(9)
            for n, task in enumerate([first, *rest]):
                assert (await task).tolist() == [[n]]
            assert slow.batches == [[0], [1, 2, 3, 4], [5, 6]]

    asyncio.run(run())


def test_a_full_queue_refuses_or_lets_wait() -> None:
    async def run() -> None:
        slow = Slow()
        async with batcher(slow, capacity=4) as made:
            asyncio.create_task(made.embed([0]))  # noqa: RUF006
            await asyncio.sleep(0.05)
            accepted = asyncio.create_task(made.embed([1, 2, 3]))
            await until(lambda: len(made) == 3)
            with pytest.raises(ApiError) as caught:
                await made.embed([4, 5])
            assert caught.value.status_code == 429
            assert int((caught.value.headers or {})["Retry-After"]) >= 1
            patient = asyncio.create_task(made.embed(list(range(4, 14)), patient=True))  # more than its capacity
            slow.go.release(20)
            assert (await accepted).tolist() == [[1], [2], [3]]
            assert (await patient).tolist() == [[n] for n in range(4, 14)]

    asyncio.run(run())


def test_one_that_fails_harms_no_other() -> None:
    async def run() -> None:
        slow = Slow()
        async with batcher(slow) as made:
            asyncio.create_task(made.embed([0]))  # noqa: RUF006
            await asyncio.sleep(0.05)
            tasks = [asyncio.create_task(made.embed([n])) for n in (1, -1, 2, -2)]
            await until(lambda: len(made) == 4)
            slow.go.release(20)
            good, bad, other, fault = await asyncio.gather(*tasks, return_exceptions=True)
            assert (good.tolist(), other.tolist()) == ([[1]], [[2]])
            assert isinstance(bad, BadInput)
            assert isinstance(fault, ApiError)
            assert fault.status_code == 500

    asyncio.run(run())


def test_what_nobody_waits_for_is_not_embedded() -> None:
    async def run() -> None:
        slow = Slow()
        async with batcher(slow, seconds=1) as made:
            with pytest.raises(ApiError) as caught:
                await asyncio.gather(made.embed([0]), made.embed([1]), made.embed([2]))
            assert caught.value.status_code == 504
            slow.go.release(20)
            assert (await made.embed([3])).tolist() == [[3]]
        assert [3] in slow.batches
        assert len(slow.batches) == 2

    asyncio.run(run())


def test_closing_finishes_what_was_accepted() -> None:
    async def run() -> None:
        slow = Slow()
        async with batcher(slow) as made:
            tasks = [asyncio.create_task(made.embed([n])) for n in range(6)]
            await until(lambda: len(made) + 4 >= 6)
            closing = asyncio.create_task(made.close())
            await asyncio.sleep(0.05)
            with pytest.raises(ApiError) as caught:
                await made.embed([9])
            assert caught.value.status_code == 503
            slow.go.release(20)
            assert [(await task).tolist() for task in tasks] == [[[n]] for n in range(6)]
            await closing

    asyncio.run(run())


class Gated(Colours):
    """Embeds texts once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        assert self.go.wait(20)
        return super().embed_texts(texts)


def test_a_server_that_is_full_says_when_to_come_again(tmp_path: Path) -> None:
    gated = Gated()
    limits = Limits(queue=2, requests=4)
    with served(Settings(root=tmp_path, limits=limits, batch=1), lambda: gated) as client:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(client.post("/v1/embeddings", json={"input": "red"}))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait(lambda: len(answers) >= 5)  # one is worked on, two wait, a fourth finds no room, four no place at all
        for answer in answers:
            assert error(answer) == (429, "busy")
            assert int(answer.headers["retry-after"]) >= 1
        gated.go.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5


def test_an_answer_that_takes_too_long(tmp_path: Path) -> None:
    gated = Gated()
    with served(Settings(root=tmp_path, limits=Limits(answer_seconds=0.2)), lambda: gated) as client:
        assert error(client.post("/v1/embeddings", json={"input": "red"})) == (504, "timeout")
        gated.go.set()
        wait(lambda: client.post("/v1/embeddings", json={"input": "red"}).status_code == 200)

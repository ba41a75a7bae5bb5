"""Wear a retrieval server out: everything at once, a kill in the middle, each answer held to a mirror in memory.

Workers own the ids they write, so that each knows what the server has to say about them. Searches look for the vector
of one of a worker's own entries, filtered to that worker's: the answer has to be the brute-force one of its mirror.
A write whose answer the kill took may have been made or not; both are right, and the next answer about it settles it.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm.bench.server_process import ServerProcess, free_port, vlm_command

WIDTH = 64
"""Of the vectors of `colours`, the embedder that is no model: the server is what wears out."""
C = "/v1/collections/soak"
NEAR = 1e-4
MANY = 400
"""Entries of a worker, beyond which it deletes more than it writes."""
KINDS = {"search": 40, "write": 30, "delete": 8, "picture": 8, "embed": 6, "malformed": 6, "oversized": 2}
"""How often each is done."""


@dataclass(frozen=True)
class Soaked:
    """What came of it. `lost` and `wrong` say what was; memory in MB, at a quarter of the time and at the end."""

    seconds: float
    requests: dict[str, int]
    p50_ms: float
    p99_ms: float
    kills: int
    lost: list[str]
    wrong: list[str]
    memory_mb: tuple[float, float]


@dataclass
class Log:
    """What the workers saw together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Worker:
    """Does one thing after another, and knows what it has written."""

    def __init__(self, name: str, log: Log, server: Callable[[], ServerProcess]) -> None:
        self.name, self.log, self.server = name, log, server
        self.random = random.Random(name)
        self.numbers = np.random.default_rng(self.random.randrange(2**32))
        self.mirror: dict[str, np.ndarray] = {}
        self.unsure: dict[str, np.ndarray | None] = {}
        """Changes whose answer did not come: the vector, or None of a delete."""
        self.count = 0

    def step(self) -> None:
        kinds = {**KINDS, "delete": 40} if len(self.mirror) > MANY else KINDS
        kind = self.random.choices(list(kinds), list(kinds.values()))[0]
        began = time.monotonic()
        getattr(self, f"do_{kind}")()
        with self.log.lock:
            self.log.requests[kind] += 1
            self.log.times.append(time.monotonic() - began)

    def do_write(self) -> None:
        rows = self.numbers.standard_normal((self.random.choice((1, 1, 4)), WIDTH))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        ids = [self._id() for _ in rows]
        items = [{"id": i, "vector": r.tolist(), "metadata": {"of": self.name}} for i, r in zip(ids, rows, strict=True)]
        self._change(dict(zip(ids, rows.astype(np.float32), strict=True)), "POST", f"{C}/items", {"items": items})

    def do_picture(self) -> None:
        """Its vector is the one that `/v1/embeddings` gives for the same bytes."""
        colours = self.numbers.integers(0, 256, (6, 6, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(colours).resize((200, 150), Image.Resampling.NEAREST).save(out, "PNG")
        from base64 import b64encode

        image = b64encode(out.getvalue()).decode()
        status, body = self._ask("POST", "/v1/embeddings", {"input": {"image": image}})
        self._expect(status == 200, f"embeddings: {status}")
        vector = np.array(body["data"][0]["embedding"], np.float32)
        id = self._id()
        item = {"id": id, "image": image, "metadata": {"of": self.name}}
        self._change({id: vector}, "POST", f"{C}/items", item)

    def do_delete(self) -> None:
        if self.mirror:
            id = self.random.choice(list(self.mirror))
            self._change({id: None}, "DELETE", f"{C}/items/{id}", None)

    def do_search(self) -> None:
        if not self.mirror:
            return
        query = self.mirror[self.random.choice(list(self.mirror))]
        body = {"vector": query.tolist(), "top": 5, "filter": {"of": self.name}}
        status, answer = self._ask("POST", f"{C}/search", body)
        self._expect(status == 200, f"search: {status} {answer}")
        self._compare(query, [(hit["id"], hit["score"]) for hit in answer["hits"]])

    def do_embed(self) -> None:
        status, answer = self._ask("POST", "/v1/embeddings", {"input": [f"red {self.count}", "blue"]})
        self._expect(status == 200 and len(answer["data"]) == 2, f"embeddings: {status}")

    def do_malformed(self) -> None:
        bodies: list[tuple[str, bytes]] = [
            (f"{C}/items", b'{"image": "bm8gcGljdHVyZQ=="}'),
            (f"{C}/items", b'{"vector": [NaN]}'),
            (f"{C}/items", b"{" * 5000),
            (f"{C}/search", b'{"vector": [1, 2, 3]}'),
            (f"{C}/search", b'{"text": "a", "filter": {"a": {"near": 1}}}'),
            ("/v1/embeddings", b'{"input": {"image": "iVBORw0KGgoAAAANSUhEUgAA"}}'),
        ]
        path, body = self.random.choice(bodies)
        status, answer = self.server().ask("POST", path, body)
        self._expect(400 <= status < 500 and set(answer) == {"error"}, f"malformed {body[:40]!r}: {status}")

    def do_oversized(self) -> None:
        """More than the server takes, announced and sent; it may hang up before it has heard all of it."""
        kind = "multipart/form-data; boundary=b"
        with contextlib.suppress(ConnectionError):
            status, _ = self.server().ask("POST", f"{C}/items", bytes(6 * 2**20), kind)
            self._expect(status == 413, f"oversized: {status}")

    def settle(self) -> None:
        """After a kill: what is there of the changes whose answers did not come, and all of those that did."""
        for id, vector in list(self.unsure.items()):
            there = self._there(id)
            if not there:
                self.mirror.pop(id, None)
            elif vector is not None and (id not in self.mirror or self._has(id, vector)):
                self.mirror[id] = vector
        self.unsure.clear()
        for id in self.mirror:
            if not self._there(id):
                with self.log.lock:
                    self.log.lost.append(id)
        self.mirror = {id: vector for id, vector in self.mirror.items() if id not in self.log.lost}

    def _there(self, id: str) -> bool:
        return self.server().ask("GET", f"{C}/items/{id}")[0] == 200

    def _has(self, id: str, vector: np.ndarray) -> bool:
        """Whether an entry that was to be replaced was."""
        body = {"vector": vector.tolist(), "top": 1, "filter": {"of": self.name}}
        hits = self._ask("POST", f"{C}/search", body)[1]["hits"]
        return bool(hits) and hits[0]["id"] == id and hits[0]["score"] > 1 - NEAR

    def _id(self) -> str:
        """A new one, or now and then a known one, whose entry is replaced."""
        if self.mirror and self.random.random() < 0.2:
            return self.random.choice(list(self.mirror))
        self.count += 1
        return f"{self.name}-{self.count}"

    def _change(self, after: dict[str, Any], method: str, path: str, body: Any) -> None:
        self.unsure |= after
        status, answer = self._ask(method, path, body)
        self._expect(status == 200, f"{method} {path}: {status} {answer}")
        for id in after:
            del self.unsure[id]
        if status == 200:
            self.mirror |= {id: vector for id, vector in after.items() if vector is not None}
            for id in (id for id, vector in after.items() if vector is None):
                self.mirror.pop(id)

    def _compare(self, query: np.ndarray, hits: list[tuple[str, float]]) -> None:
        """The scores must be the best there are, and each hit's its own; ties may come in any order."""
        scores = {id: float(vector @ query) for id, vector in self.mirror.items()}
        best = sorted(scores.values(), reverse=True)[: len(hits)]
        right = len(hits) == min(5, len(scores)) and len({id for id, _ in hits}) == len(hits)
        right = right and all(id in scores and abs(scores[id] - score) < NEAR for id, score in hits)
        right = right and all(abs(score - wanted) < NEAR for (_, score), wanted in zip(hits, best, strict=True))
        self._expect(right, f"search of {self.name}: got {hits}, expected scores {best}")

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Again after a while where the server is busy."""
        while True:
            data = None if body is None else json.dumps(body).encode()
            status, answer = self.server().ask(method, path, data)
            if status != 429:
                return status, answer
            time.sleep(0.2)

    def _expect(self, right: bool, what: str) -> None:
        if not right:
            with self.log.lock:
                self.log.wrong.append(what[:500])


def soak(
    root: Path, seconds: float, *, workers: int = 6, engine: str = "lance", say: Callable[[str], None] = lambda t: None
) -> Soaked:
    """Wear out a server with an empty folder `root` for so long; in the middle it is killed and started again."""
    log = Log()
    server = _server(root, engine)
    try:
        server.ask("POST", "/v1/collections", b'{"name": "soak"}')
        crew = [Worker(f"w{number}", log, lambda: server) for number in range(workers)]
        began = time.monotonic()
        _work(crew, began + seconds / 4, say)
        early = server.memory_mb()
        _work(crew, began + seconds / 2, say, lambda: server.end(signal.SIGKILL))
        server = _server(root, engine)
        _together([worker.settle for worker in crew])
        again = time.monotonic()
        _work(crew, again + seconds / 4, say)
        early = server.memory_mb() if seconds < 60 else early
        _work(crew, again + seconds / 2, say)
        _together([worker.settle for worker in crew])
        count = server.ask("GET", C)[1]["count"]
        expected = sum(len(worker.mirror) for worker in crew)
        if count != expected:
            log.wrong.append(f"expected {expected} entries at the end, got {count}")
        late = server.memory_mb()
        if code := server.end(signal.SIGTERM):
            log.wrong.append(f"expected the server to end with 0, got {code}")
    finally:
        server.process.kill()
    p50, p99 = np.percentile(log.times, [50, 99]) * 1000
    spent = time.monotonic() - began
    return Soaked(spent, dict(log.requests), float(p50), float(p99), 1, log.lost, log.wrong, (early, late))


def _server(root: Path, engine: str) -> ServerProcess:
    port = free_port()
    options = ["--model", "colours", "--root", str(root), "--engine", engine, "--no-page", "--body-mb", "4"]
    return ServerProcess("vlm serve retrieval", vlm_command("serve", "retrieval", *options, "--port", str(port)), port)


def _work(crew: list[Worker], until: float, say: Callable[[str], None], end: Callable[[], Any] | None = None) -> None:
    """All of them until then. With `end`, the server is ended while they work, and they stop as they notice."""
    over = threading.Event()

    def run(worker: Worker) -> None:
        while not over.is_set() and (end is not None or time.monotonic() < until):
            try:
                worker.step()
            except (OSError, http.client.HTTPException, ValueError):
                if end is None:
                    raise
                return

    stop = threading.Timer(max(0.0, until - time.monotonic()), end) if end is not None else None
    if stop is not None:
        stop.start()
    _together([lambda worker=worker: run(worker) for worker in crew])  # type: ignore[misc]
    over.set()
    if stop is not None:
        stop.join()
    say(f"{sum(crew[0].log.requests.values())} requests, {len(crew[0].log.wrong)} wrong")


def _together(works: list[Callable[[], None]]) -> None:
    """Each in a thread; raises what one of them raises."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(work) for work in works]:
            done.result()

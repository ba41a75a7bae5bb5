"""What was answered is there after a kill; what was accepted is finished at a shutdown."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving import ServerProcess, error, picture, wait

pytestmark = pytest.mark.process
C = "/v1/collections/c"


def test_every_answered_write_survives_a_kill(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.client.post("/v1/collections", json={"name": "c"})
    written: dict[str, list[float]] = {}
    deleted: set[str] = set()

    def write(worker: int) -> None:
        rng = np.random.default_rng(worker)
        try:
            with httpx.Client(base_url=server.client.base_url, timeout=20) as client:
                for n in range(10_000):
                    id, vector = f"{worker}-{n}", rng.standard_normal(64)
                    row = (vector / np.linalg.norm(vector)).tolist()
                    answer = client.post(f"{C}/items", json={"id": id, "vector": row, "metadata": {"n": n}})
                    if answer.json()["items"][0]["status"] == "added":
                        written[id] = row
                    if n % 5 == 4 and client.delete(f"{C}/items/{worker}-{n - 2}").status_code == 200:
                        deleted.add(f"{worker}-{n - 2}")
        except httpx.HTTPError:
            pass  # the server is dead

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    wait(lambda: len(deleted) >= 4)
    server.end(signal.SIGKILL)
    for thread in threads:
        thread.join()

    again = ServerProcess(tmp_path)
    live = {id: row for id, row in written.items() if id not in deleted}
    assert len(live) > 10
    for id, row in live.items():
        answer = again.client.post(f"{C}/search", json={"vector": row, "top": 1})
        hits = answer.json()["hits"]
        if hits[0]["id"] != id:  # a delete whose answer was lost
            assert int(id.partition("-")[2]) % 5 == 2, id
            continue
        assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    for id in deleted:
        assert error(again.client.get(f"{C}/items/{id}")) == (404, "item_not_found")
    assert again.end() == 0


def test_a_termination_finishes_what_was_accepted(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.client.post("/v1/collections", json={"name": "c"})
    answers: list[httpx.Response] = []

    def add(n: int) -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=20) as client:
            files = [("file", (f"{i}.png", picture((n, i, 0)))) for i in range(16)]
            answers.append(client.post(f"{C}/items", files=files))

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    begun = re.compile(r'vlm_embedding_batch_count{kind="image",model="colours"} [1-9]')
    wait(lambda: begun.search(server.client.get("/metrics").text))
    assert server.end() == 0
    for thread in threads:
        thread.join()
    again = ServerProcess(tmp_path)
    accepted = sum(len(answer.json()["items"]) for answer in answers if answer.status_code == 200)
    assert again.client.get(C).json()["count"] == accepted > 0
    assert again.end(signal.SIGINT) == 0

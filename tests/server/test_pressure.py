"""More than can be done at once waits or is told when to come again, and holds no more memory than it may."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import error, picture, served, wait

from vlm.media.process.pictures import COPIES
from vlm.server.embedding.embedder import Colours
from vlm.server.http.settings import MB, Limits, Settings

C = "/v1/collections/c"


class Held(Colours):
    """Counts the pictures that it is given, and holds them until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.seen = threading.Event(), 0

    def embed_images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(pictures)
        assert self.go.wait(30)
        return super().embed_images([np.ascontiguousarray(picture[::9, ::9]) for picture in pictures])


def files(count: int, start: int = 0) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"{n}.png", picture((n % 256, n // 256, 7)))) for n in range(start, start + count)]


def test_uploads_wait_for_longer_than_a_batch_may_take(tmp_path: Path) -> None:
    """The time runs from when the model begins: what waits for its turn loses none of it."""

    class Slow(Colours):
        def embed_images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
            time.sleep(0.02)
            return super().embed_images(pictures)

    limits = Limits(answer_seconds=0.3)
    with served(Settings(root=tmp_path, limits=limits, batch=1), Slow) as client, ThreadPoolExecutor(3) as threads:
        began = time.monotonic()
        posts = [threads.submit(client.post, f"{C}/items", files=files(20, 20 * n)) for n in range(3)]
        for post in posts:
            assert [item["status"] for item in post.result().json()["items"]] == ["added"] * 20
        assert time.monotonic() - began > limits.answer_seconds
        assert client.get(C).json()["count"] == 60


def test_a_search_passes_the_uploads_that_wait(tmp_path: Path) -> None:
    held = Held()
    with served(Settings(root=tmp_path), lambda: held) as client, ThreadPoolExecutor(1) as threads:
        client.post(f"{C}/items", json={"text": "red", "id": "red"})
        upload = threads.submit(client.post, f"{C}/items", files=files(40))
        wait(lambda: held.seen)
        for _ in range(3):  # words do not wait for pictures
            hits = client.post(f"{C}/search", json={"text": "red"}).json()["hits"]
            assert hits[0]["id"] == "red"
        held.go.set()
        assert upload.result().status_code == 200
    assert held.seen == 40


def test_an_upload_that_would_wait_too_long_is_told_when_to_come_again(tmp_path: Path) -> None:
    held = Held()
    with served(Settings(root=tmp_path, limits=Limits(wait_seconds=0.1)), lambda: held) as client:
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(client.post, f"{C}/items", files=files(40))
            wait(lambda: held.seen)
            refused = client.post(f"{C}/items", files=files(40, 40))
            assert error(refused) == (429, "busy")
            assert int(refused.headers["retry-after"]) >= 1
            assert client.post(f"{C}/items", json={"text": "red"}).status_code == 200  # no picture: no wait
            held.go.set()
            assert first.result().status_code == 200
        assert client.post(f"{C}/items", files=files(1)).status_code == 200
        assert client.get(C).json()["count"] == 41


def test_uploads_take_no_search_s_place(tmp_path: Path) -> None:
    held = Held()
    with served(Settings(root=tmp_path, limits=Limits(requests=2)), lambda: held) as client:
        client.post("/v1/collections", json={"name": "c"})
        with ThreadPoolExecutor(3) as threads:
            posts = [threads.submit(client.post, f"{C}/items", files=files(1, n)) for n in range(3)]
            wait(lambda: any(post.done() for post in posts))
            assert client.post(f"{C}/search", json={"text": "red"}).status_code == 200
            held.go.set()
        assert sorted(post.result().status_code for post in posts) == [200, 200, 429]


def test_json_of_all_requests_together_is_bounded(tmp_path: Path) -> None:
    limits = Limits(bodies_bytes=MB, json_bytes=4 * MB)
    with served(Settings(root=tmp_path, limits=limits)) as client:
        refused = client.post("/v1/embeddings", json={"input": "a" * (2 * MB)})
        assert error(refused) == (429, "busy")
        for _ in range(20):  # what was read is given back
            assert client.post("/v1/embeddings", json={"input": "a" * 8000}).status_code == 200


@contextmanager
def watched() -> Any:
    """The most memory of this process and its children, in MB, as a function; `None` where the system does not say."""
    if not Path("/proc/self/task").exists():
        pytest.skip("the system does not say what memory is held")
    most, over = [held_mb()], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most.append(held_mb())

    thread = threading.Thread(target=look)
    thread.start()
    yield lambda: max(most)
    over.set()
    thread.join()


def held_mb() -> float:
    """Shared pages once; without a process that is being started, which is the one that starts it for a moment."""
    total, left = 0, [("self", b"")]
    while left:
        number, parent = left.pop()
        process = Path("/proc") / number
        try:
            command = (process / "cmdline").read_bytes()
            if command == parent:
                continue
            held = re.search(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
            total += int(held[1]) * 1024 if held else 0
            for task in (process / "task").iterdir():
                left += ((child, command) for child in (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return total / MB


def large() -> bytes:
    """4 million pixels in a few kB."""
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000), "red").save(out, "PNG")
    return out.getvalue()


def by_form(client: httpx.Client, content: bytes) -> list[int]:
    """64 files in four requests at once."""
    with ThreadPoolExecutor(4) as threads:
        given = [("file", (f"{n}.png", content)) for n in range(16)]
        ids = {"id": [str(n) for n in range(16)]}
        return [a.status_code for a in threads.map(lambda _: client.post(f"{C}/items", files=given, data=ids), "abcd")]


def by_json(client: httpx.Client, content: bytes) -> list[int]:
    """Queries, which wait for nobody."""
    image = base64.b64encode(content).decode()
    body = json.dumps({"queries": [{"image": image}] * 32})
    headers = {"Content-Type": "application/json"}
    with ThreadPoolExecutor(2) as threads:
        ask = lambda _: client.post(f"{C}/search", content=body, headers=headers)  # noqa: E731
        return [answer.status_code for answer in threads.map(ask, "ab")]


@pytest.mark.parametrize("way", [by_form, by_json])
def test_pictures_take_room_by_their_headers_before_they_are_decoded(
    tmp_path: Path, way: Callable[[httpx.Client, bytes], list[int]]
) -> None:
    """Decoded at once, 64 of these would be 768 MB, and four times that while they are decoded."""
    content, held = large(), Held()
    room = 2 * COPIES * 2000 * 2000
    with served(Settings(root=tmp_path, limits=Limits(decoded_bytes=room)), lambda: held) as client:
        client.post(f"{C}/items", json={"text": "red"})
        held.go.set()
        client.post(f"{C}/search", json={"image": base64.b64encode(picture()).decode()})  # processes are there
        before = held_mb()
        held.go.clear()
        with watched() as most, ThreadPoolExecutor(1) as threads:
            answers = threads.submit(way, client, content)
            wait(lambda: held.seen > 1)
            time.sleep(1.0)  # what else would be decoded meanwhile
            held.go.set()
            assert set(answers.result()) == {200}
            # Beside the room: the memory that processes share for their answers, and what allocators keep.
            assert most() - before < room / MB + 200

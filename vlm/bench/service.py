"""The retrieval service beside a naive one over the same model: searches alone, uploads alone, and both at once.

Each is a process; in turns each is alone with the machine. Two searchers ask for words one after another, two uploaders
send photographs by 16 a request; before anything counts, both have a collection and have answered once.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from vlm.bench.machine import machine
from vlm.bench.server_process import free_port, vlm_command
from vlm.bench.timing import Say
from vlm.errors import VlmError

SEARCHERS, UPLOADERS, FILES = 2, 2, 16
SIDE = (640, 480)
WORDS = "a dog in the snow|two children on a beach|a red car at night|an old man reading|a bird over the sea".split("|")
CASES = ("search alone", "upload alone", "search beside uploads")


@dataclass(frozen=True)
class Served:
    """One side in one case: medians over the rounds."""

    service: str
    case: str
    searches: float
    """A second."""
    p50_ms: float
    p99_ms: float
    uploads: float
    """Pictures a second."""


@dataclass(frozen=True)
class Comparison:
    rows: list[Served]
    machine: str
    """Times of ours hold on one kind."""
    ratios: dict[str, float]
    """Ours over the naive one's; and of ours the p99 of searches beside uploads over that of searches alone."""


@dataclass
class Seen:
    """What the clients of one turn saw."""

    seconds: float = 0.0
    searches: list[float] = field(default_factory=list)
    uploads: list[float] = field(default_factory=list)
    """When each request was answered, in seconds from the beginning."""


class Side:
    """A service that runs, and how it is asked."""

    def __init__(self, name: str, command: list[str], search: str, items: str, port: int) -> None:
        self.name, self._search, self._items = name, search, items
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.address = f"http://127.0.0.1:{port}"
        self.numbers = np.random.default_rng(0)

    def ready(self, photographs: list[bytes]) -> None:
        """Wait until it answers, and let it have something to search."""
        until = time.monotonic() + 300
        with httpx.Client(base_url=self.address, timeout=300) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.post(self._items, files=_form(photographs)).status_code == 200:
                        client.post(self._search, json={"text": WORDS[0], "top": 10}).raise_for_status()
                        return
                if time.monotonic() > until or self.process.poll() is not None:
                    raise VlmError(f"{self.name} did not start")
                time.sleep(0.2)

    def turn(self, seconds: float, searchers: int, uploaders: int, photographs: list[bytes]) -> Seen:
        """So many clients for so long; uploads that have begun are waited for, and searched beside until then."""
        seen, over, lock = Seen(), threading.Event(), threading.Lock()
        left = uploaders

        def ask(client: httpx.Client, number: int) -> None:
            began = time.perf_counter()
            client.post(self._search, json={"text": f"{WORDS[number % 5]} {number}", "top": 10}).raise_for_status()
            with lock:
                seen.searches.append(time.perf_counter() - began)

        def send(client: httpx.Client, number: int) -> None:
            client.post(self._items, files=_form(photographs)).raise_for_status()
            with lock:
                seen.uploads.append(time.perf_counter() - began)

        def run(work: Callable[[httpx.Client, int], None]) -> None:
            nonlocal left
            with httpx.Client(base_url=self.address, timeout=300) as client:
                number = 0
                while not over.is_set() or (work is ask and left):
                    work(client, number)
                    number += 1
            left -= work is send

        threads = [threading.Thread(target=run, args=(work,)) for work in [ask] * searchers + [send] * uploaders]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        over.set()
        for thread in threads:
            thread.join()
        seen.seconds = time.perf_counter() - began
        return seen

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def compare(model: str, rounds: int, seconds: float, say: Say) -> Comparison:
    """Every case `rounds` times for `seconds` each, the two services in turns, after one turn that does not count."""
    photographs = list(photographs_of(48))
    seen: dict[tuple[str, str], list[Seen]] = {}
    with tempfile.TemporaryDirectory(prefix="vlm-bench-") as folder:
        sides = _sides(model, Path(folder))
        try:
            for side in sides:
                side.ready(photographs)
            for number in range(rounds + 1):
                for case, (searchers, uploaders) in zip(CASES, ((2, 0), (0, 2), (2, 2)), strict=True):
                    for side in sides[:: 1 if number % 2 else -1]:
                        found = side.turn(seconds if number else 5, searchers, uploaders, photographs)
                        if number:
                            seen.setdefault((side.name, case), []).append(found)
                            say(f"{side.name}, {case}: {_row(side.name, case, [found])}")
        finally:
            for side in sides:
                side.close()
    rows = [_row(name, case, found) for (name, case), found in seen.items()]
    return Comparison(rows, machine(), _ratios(rows))


def _sides(model: str, folder: Path) -> list[Side]:
    ours, naive = free_port(), free_port()
    command = vlm_command("serve", "retrieval", "--model", model, "--root", str(folder / "root"))
    c = "/v1/collections/c"
    return [
        Side("vlm serve", [*command, "--port", str(ours), "--no-page", "--offline"], f"{c}/search", f"{c}/items", ours),
        Side("naive", [sys.executable, "-m", "vlm.bench.naive_service", model, str(naive)], "/search", "/items", naive),
    ]


def _row(name: str, case: str, found: list[Seen]) -> Served:
    def median(of: Callable[[Seen], float]) -> float:
        return statistics.median(of(each) for each in found)

    def quantile(each: Seen, share: float) -> float:
        return float(np.quantile(each.searches, share)) * 1000 if each.searches else 0.0

    return Served(
        name,
        case,
        median(lambda each: len(each.searches) / each.seconds),
        median(lambda each: quantile(each, 0.5)),
        median(lambda each: quantile(each, 0.99)),
        median(lambda each: FILES * len(each.uploads) / max(each.uploads, default=1.0)),
    )


def _ratios(rows: list[Served]) -> dict[str, float]:
    of = {(row.service, row.case): row for row in rows}
    alone, upload, both = ((of["vlm serve", case], of["naive", case]) for case in CASES)
    return {
        "searches alone": alone[0].searches / alone[1].searches,
        "uploads alone": upload[0].uploads / upload[1].uploads,
        "searches beside uploads": both[0].searches / both[1].searches,
        "uploads beside searches": both[0].uploads / both[1].uploads,
        "p99 beside uploads over alone": both[0].p99_ms / alone[0].p99_ms,
    }


def _form(photographs: list[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """16 of them, in another order each time."""
    some = np.random.default_rng().permutation(len(photographs))[:FILES]
    return [("file", (f"{number}.jpg", photographs[number], "image/jpeg")) for number in some]


def photographs_of(count: int) -> Iterator[bytes]:
    """JPEGs with structure at every scale, as photographs have, no two alike."""
    numbers = np.random.default_rng(7)
    for _ in range(count):
        layers = [
            np.asarray(Image.fromarray(numbers.integers(0, 256, (3 * n, 4 * n, 3), np.uint8)).resize(SIDE, 3), float)
            for n in (2, 8, 32, 128)
        ]
        out = io.BytesIO()
        Image.fromarray(np.average(layers, axis=0, weights=(4, 2, 1, 0.5)).astype(np.uint8)).save(out, "JPEG")
        yield out.getvalue()

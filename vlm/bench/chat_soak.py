"""Wear a chat server out: many clients at once within a fixed budget, then an end in the middle of replies, and a kill.

What must never happen: a reply that is not the one of the same request alone, to the letter; a request that was
accepted and is lost; a status of 5xx; a full queue without 429 and Retry-After; anything that is held once nobody asks
any more.
"""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlm.bench.chat_client import Answer, Body, ask, client
from vlm.bench.chat_crowd import Client, Log, judged, requests, said_alone, together
from vlm.bench.machine import machine
from vlm.bench.server_process import ServerProcess, free_port, vlm_command
from vlm.bench.service import photographs_of
from vlm.bench.timing import Say

DRAIN_SECONDS = 30.0
"""From the last answer to when nothing is held."""
MORE = 16
"""Requests at once beyond those that a server takes."""
KEYS = ("running", "waiting", "reply")


@dataclass(frozen=True)
class Budget:
    """What the server is started with."""

    running: int = 16
    waiting: int = 32
    memory_mb: int = 256
    """Of keys and values."""


@dataclass(frozen=True)
class Worn:
    """What came of it. Times in milliseconds, memory in MB of the server and its decoders."""

    machine: str
    model: str
    clients: int
    budget: Budget
    seconds: float
    requests: dict[str, int]
    refused: int
    """With 429, to come again."""
    tokens_per_second: float
    """Of whole replies."""
    first_p50_ms: float
    first_p99_ms: float
    """To the first token of a stream."""
    p50_ms: float
    p99_ms: float
    memory_mb: dict[str, dict[str, float]]
    """`Pss` and `Rss`: at the start (the model warm), at most, at the end."""
    held: dict[str, float]
    """Once nobody asked any more, by /metrics."""
    finished_at_end: int
    """Replies that were accepted before SIGTERM, all of which had to come whole."""
    refused_when_full: int
    restart_seconds: float
    """From a start after SIGKILL to the first answer of /readyz."""
    lost: list[str]
    wrong: list[str]

    @property
    def passed(self) -> bool:
        return not self.lost and not self.wrong


def soak(
    model: str | None, seconds: float, *, clients: int = 64, budget: Budget | None = None, say: Say = lambda text: None
) -> Worn:
    """`model` is a folder or a card; without it SmolVLM-256M's shape with random weights."""
    with tempfile.TemporaryDirectory(prefix="vlm-soak-") as folder:
        if model is None:
            from vlm.bench.random_smolvlm import write

            say("writing random weights")
            return _soaked(str(write(Path(folder) / "random-smolvlm")), seconds, clients, budget or Budget(), say)
        return _soaked(model, seconds, clients, budget or Budget(), say)


def _soaked(model: str, seconds: float, clients: int, budget: Budget, say: Say) -> Worn:
    log, bodies, picture = Log(), requests(), next(photographs_of(1))

    def crowd(server: ServerProcess) -> list[Client]:
        return [Client(n, server.address, log, bodies, alone, decided, picture) for n in range(clients)]

    with _served(model, budget) as server:
        alone, decided = said_alone(server.address, bodies, picture)
        memory = {kind: {"start": server.memory_mb(kind)} for kind in ("Pss", "Rss")}
        say(f"{len(alone)} requests alone; now {clients} clients")
        began = time.monotonic()
        with server.watched() as most:
            together(crowd(server), lambda: time.monotonic() > began + seconds)
        spent = time.monotonic() - began
        counts, refused, answers = dict(log.requests), log.refused, list(log.answers)
        say(f"{sum(counts.values())} requests, {refused} refused, {len(log.lost)} lost, {len(log.wrong)} wrong")
        held = _drained(server, log)
        for kind, found in memory.items():
            found |= {"most": most[kind], "end": server.memory_mb(kind)}
        finished, full = _ended(server, budget, bodies["text 0"], alone["text 0"], log)
    say(f"{finished} replies finished after SIGTERM; now a kill")
    with _served(model, budget) as server:
        until = time.monotonic() + min(10.0, seconds / 4)
        killing = threading.Timer(min(10.0, seconds / 4), _killed, (server, log))
        killing.start()
        together(crowd(server), lambda: log.killed and time.monotonic() > until)
        killing.join()
    with _served(model, budget) as server:
        again, _ = said_alone(server.address, bodies, picture)
        other = [name for name in alone if again[name] != alone[name]]
        log.wrong += [f"{name}, after a kill: expected {alone[name]!r}, got {again[name]!r}" for name in other]
        restart = server.start_seconds
        if code := server.end(signal.SIGTERM):
            log.wrong.append(f"expected the server to end with 0, got {code}")
    times = _times([answer.seconds for answer in answers])
    firsts = _times([answer.first_seconds for answer in answers if answer.first_seconds < answer.seconds])
    tokens = sum(answer.tokens for answer in answers) / spent
    return Worn(
        machine(), model, clients, budget, spent, counts, refused, tokens, *firsts, *times, memory, held, finished,
        full, restart, log.lost, log.wrong,
    )  # fmt: skip


@contextlib.contextmanager
def _served(model: str, budget: Budget) -> Iterator[ServerProcess]:
    port = free_port()
    bounds = ["--running", str(budget.running), "--waiting", str(budget.waiting), "--memory-mb", str(budget.memory_mb)]
    words = ["--model", model, "--offline", "--port", str(port), "--body-mb", "16", *bounds]
    server = ServerProcess("vlm serve chat", vlm_command("serve", "chat", *words), port)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def _drained(server: ServerProcess, log: Log) -> dict[str, float]:
    """What is held once nobody asks any more; it is wrong where that is not nothing before long."""
    until = time.monotonic() + DRAIN_SECONDS
    while any((held := figures(server))[key] for key in KEYS) and time.monotonic() < until:
        time.sleep(0.2)
    if any(held[key] for key in KEYS):
        log.wrong.append(f"expected nothing held after {DRAIN_SECONDS:.0f} s, got {held}")
    return held


def figures(server: ServerProcess) -> dict[str, float]:
    """Of /metrics: replies that run and wait, bytes of `reply`, `prompt` and `picture`."""
    text = server.ask("GET", "/metrics")[1]
    found = re.findall(r'^vlm_engine_(?:replies|bytes)\{\w+="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def _ended(server: ServerProcess, budget: Budget, body: Body, alone: str, log: Log) -> tuple[int, int]:
    """More at once than it takes, and SIGTERM when each has been accepted or refused: how many there were of both."""
    count = budget.running + budget.waiting + MORE
    known = threading.Semaphore(0)

    def one() -> Answer:
        with client(server.address) as asking:
            return ask(asking, {**body, "stream": True}, begun=known.release)

    with ThreadPoolExecutor(count) as threads:
        asked = [threads.submit(one) for _ in range(count)]
        for _ in asked:
            known.acquire(timeout=120)
        server.process.send_signal(signal.SIGTERM)
        answers = [done.result() for done in asked if (done.exception() or True) is True]
        log.lost += [f"at SIGTERM: {done.exception()}" for done in asked if done.exception()]
    accepted = [answer for answer in answers if answer.status == 200]
    refusals = [answer for answer in answers if answer.status == 429 and (answer.retry_after or "0") > "0"]
    log.lost += [f"at SIGTERM: {trouble}" for answer in accepted if (trouble := judged(answer, alone))]
    log.wrong += [f"when full: {a.status} {a.text[:200]}" for a in answers if a not in accepted and a not in refusals]
    if not refusals:
        log.wrong.append(f"expected some of {count} requests at once to be refused with 429 and Retry-After, got none")
    if code := server.process.wait(120):
        log.wrong.append(f"expected the server to end with 0 at SIGTERM, got {code}")
    return len(accepted), len(refusals)


def _killed(server: ServerProcess, log: Log) -> None:
    log.killed = True
    server.end(signal.SIGKILL)


def _times(seconds: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    if not seconds:
        return 0.0, 0.0
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return float(p50), float(p99)

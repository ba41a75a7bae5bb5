"""The chat server beside another over the same model: tokens a second, the time to the first token and of a request.

Each is a process; in turns each is alone with the machine. So many clients ask one request after another, all the same
to both sides: a JPEG of 640 x 480 and a question, answered greedily in exactly `TOKENS` tokens, streamed. What comes
back is compared, and what is not whole is an error.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlm.bench.chat_client import Answer, Body, ask, client, message
from vlm.bench.chat_decisions import Decided, decisions
from vlm.bench.machine import machine
from vlm.bench.server_process import ServerProcess, free_port, vlm_command
from vlm.bench.service import photographs_of
from vlm.bench.timing import Say
from vlm.errors import VlmError

CLIENTS = (1, 4, 16)
LOOP = "a plain loop"
TOKENS, LEAST = 32, 8
"""Of a reply; and requests of a turn, of which each client asks as many."""
QUESTIONS = (
    "What is shown in this picture?", "Describe the colours of the picture.", "How many people are there?",
    "Where was this taken, and when?", "What stands out most here?", "Write a caption for this picture.",
)  # fmt: skip
WISHES: Body = {"stream": True, "stream_options": {"include_usage": True}}
_TRANSFORMERS = "import sys; from transformers.cli.transformers import main; sys.exit(main())"


@dataclass(frozen=True)
class Case:
    clients: int
    own: bool
    """Whether every request shows a picture that nobody has shown; else all of a turn show one."""

    @property
    def name(self) -> str:
        return f"{self.clients} client{'s' * (self.clients > 1)}, {'a picture each' if self.own else 'one picture'}"


@dataclass(frozen=True)
class Measured:
    """One side in one case: the median of its turns, and quantiles over all of their requests."""

    server: str
    case: str
    tokens_per_second: float
    cpu_ms_per_token: float
    """Of all cores together: what is left to compare where other work takes a share of them."""
    first_p50_ms: float
    first_p99_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Times:
    """How many times the peer's tokens a second: the median of the rounds, the least and the most."""

    case: str
    times: float
    least: float
    most: float


@dataclass(frozen=True)
class Compared:
    machine: str
    model: str
    tokens: int
    rows: list[Measured]
    times: list[Times]
    equal: int
    """Replies that are the same on both sides, of `replies`; the plain loop's, which end nowhere, are not compared."""
    replies: int
    decisions: list[Decided]


@dataclass(frozen=True)
class Turn:
    seconds: float
    cpu_seconds: float
    answers: list[Answer]

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def compare(
    model: str | None, rounds: int, say: Say, *, clients: Sequence[int] = CLIENTS, least: int = LEAST,
    tokens: int = TOKENS,
) -> Compared:  # fmt: skip
    """`model` is a folder that transformers loads too, or a card, beside which a plain loop is served; without it
    SmolVLM-256M's shape with random weights. Every case `rounds` times, in turns, after a turn that does not count."""
    cases = [Case(number, True) for number in clients] + [Case(max(clients), False)]
    seen: dict[Case, list[tuple[Turn, Turn]]] = {case: [] for case in cases}
    pictures = photographs_of(sys.maxsize)
    wishes = {**WISHES, "max_tokens": tokens, **({} if model is None else {"logit_bias": _never_ends(model)})}
    with tempfile.TemporaryDirectory(prefix="vlm-bench-") as folder:
        sides = servers(model or str(_random(Path(folder) / "random-smolvlm", say)))
        try:
            for side in sides:
                turn(side, _bodies(Case(min(4, max(clients)), True), 1, wishes, pictures), tokens)
            for number in range(rounds):
                for case in cases:
                    bodies = _bodies(case, math.ceil(least / case.clients), wishes, pictures)
                    order = sides[:: 1 if number % 2 else -1]  # who begins changes
                    found = {side.name: turn(side, bodies, tokens) for side in order}
                    mine, other = (found[side.name] for side in sides)
                    seen[case].append((mine, other))
                    say(f"{case.name}: {mine.tokens_per_second:.1f} and {other.tokens_per_second:.1f} tokens/s")
            decided = decisions(sides[0], rounds, pictures)
        finally:
            for side in sides:
                side.close()
    names = [side.name for side in sides]
    rows = [
        _measured(name, case, [pair[side] for pair in pairs])
        for case, pairs in seen.items() for side, name in enumerate(names)
    ]  # fmt: skip
    replies = [] if names[1] == LOOP else [
        _compared(mine) == _compared(other)
        for pairs in seen.values() for pair in pairs
        for mine, other in zip(pair[0].answers, pair[1].answers, strict=True)
    ]  # fmt: skip
    times = [_times(case, pairs) for case, pairs in seen.items()]
    about = model or "SmolVLM-256M's shape, random weights"
    return Compared(machine(), about, tokens, rows, times, sum(replies), len(replies), decided)


def servers(model: str) -> tuple[ServerProcess, ServerProcess]:
    """Ours, and the peer: transformers' for a folder, else a plain loop over our own model."""
    ours, other = free_port(), free_port()
    mine = ServerProcess(
        "vlm serve", vlm_command("serve", "chat", "--model", model, "--offline", "--port", str(ours)), ours
    )
    # How threads wait is what each side chooses: what this process was given when vlm was imported is not for the peer.
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    try:
        if not Path(model).is_dir():
            command = [sys.executable, "-m", "vlm.bench.naive_chat", model, str(other)]
            return mine, ServerProcess(LOOP, command, other, "/health")
        options = ["--host", "127.0.0.1", "--port", str(other), "--device", "cpu", "--dtype", "float32"]
        command = [sys.executable, "-c", _TRANSFORMERS, "serve", model, *options]
        return mine, ServerProcess("transformers serve", command, other, "/health", environment)
    except BaseException:
        mine.close()
        raise


def turn(side: ServerProcess, bodies: Sequence[Sequence[Body]], tokens: int) -> Turn:
    """Each client's requests one after another, all clients at once. Raises `VlmError` for a reply not whole."""
    begun = threading.Barrier(len(bodies) + 1)

    def run(mine: Sequence[Body]) -> list[Answer]:
        with client(side.address) as asking:
            begun.wait()
            return [_whole(side.name, ask(asking, body), tokens) for body in mine]

    with ThreadPoolExecutor(len(bodies)) as threads:
        running = [threads.submit(run, mine) for mine in bodies]
        begun.wait()
        began, spent = time.perf_counter(), side.cpu_seconds()
        answers = [answer for one in running for answer in one.result()]
        return Turn(time.perf_counter() - began, side.cpu_seconds() - spent, answers)


def _whole(name: str, answer: Answer, tokens: int) -> Answer:
    if (answer.status, answer.finish, answer.tokens) != (200, "length", tokens):
        got = f"status {answer.status}, {answer.tokens} tokens, end {answer.finish}: {answer.text[:200]}"
        raise VlmError(f"{name}: expected a reply of {tokens} tokens, got {got}")
    return answer


def _compared(answer: Answer) -> str:
    """A reply that ends within a character: transformers keeps the half of it, we tell that there is one."""
    return answer.text.strip().rstrip("\N{REPLACEMENT CHARACTER}")


def _bodies(case: Case, requests: int, wishes: Body, pictures: Iterator[bytes]) -> list[list[Body]]:
    """Of each client."""
    first = next(pictures)
    found: list[list[Body]] = []
    for number in range(case.clients):
        mine: list[Body] = []
        for count in range(requests):
            place = number * requests + count
            shown = next(pictures) if case.own and place else first
            question = f"{QUESTIONS[place % len(QUESTIONS)]} (question {place + 1})"
            mine.append({"messages": message(question, shown), **wishes})
        found.append(mine)
    return found


def _measured(name: str, case: Case, turns: Sequence[Turn]) -> Measured:
    answers = [answer for one in turns for answer in one.answers]
    quantiles = [
        float(np.quantile([getattr(answer, what) for answer in answers], share)) * 1000
        for what in ("first_seconds", "seconds") for share in (0.5, 0.99)
    ]  # fmt: skip
    speed = statistics.median(one.tokens_per_second for one in turns)
    cost = 1000 * statistics.median(one.cpu_seconds / one.tokens for one in turns)
    return Measured(name, case.name, speed, cost, *quantiles)


def _times(case: Case, pairs: Sequence[tuple[Turn, Turn]]) -> Times:
    ratios = [mine.tokens_per_second / other.tokens_per_second for mine, other in pairs]
    return Times(case.name, statistics.median(ratios), min(ratios), max(ratios))


def _never_ends(model: str) -> dict[str, float]:
    """The bias under which no token ends a reply."""
    import vlm

    return {str(token): -100.0 for token in vlm.load(model, offline=True).processor.stop_tokens}


def _random(folder: Path, say: Say) -> Path:
    from vlm.bench.random_smolvlm import write

    say("writing random weights")
    return write(folder)

"""`vlm bench drafts`: what guesses bring: tokens a step, how many guesses are right, and seconds with them and without.

One model writes the same replies with every kind of guesses, in turns; replies must be the same, else nothing is told.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlm.bench.machine import machine
from vlm.bench.timing import Say
from vlm.engine.engine import Engine
from vlm.engine.request import Drafted, Piece, Request, Sampling
from vlm.engine.settings import EngineSettings
from vlm.facade import Model

REPLIES = (1, 4, 16)
TOKENS = 96
TEXT = (
    "The lighthouse stands on a rock two miles off the coast. It was built in 1852 of granite that ships brought from "
    "the mainland, and its lamp was lit by oil until 1923. Three keepers lived there at a time, for eight weeks each; "
    "in winter storms the boat could not land, and they stayed for months. Since 1988 it works by itself."
)
ASKED = (
    "Write a short story about a fox who wants to learn to swim.",
    f"Correct the spelling of this text and repeat it:\n{TEXT}",
    "Explain how a bicycle stays upright.",
    f"Who lived in the lighthouse, and for how long? Answer in the words of the text.\n{TEXT}",
    "List ten animals that live in forests, one a line.",
    "Write a Python function that returns the n-th Fibonacci number.",
    f"Summarise this text in two sentences:\n{TEXT}",
    "What is the difference between weather and climate?",
)


@dataclass(frozen=True)
class Row:
    """Of one kind of guesses, and replies that are written at the same time."""

    guesses: str
    replies: int
    seconds: float
    """Of all replies together: the median of the rounds."""
    tokens_per_step: float
    """Of one reply, prompts that are read among the steps."""
    guessed: int
    """In the last round."""
    right: int
    times: float
    """As fast as without guesses: the median over the rounds, the least and the most."""
    least: float
    most: float

    @property
    def acceptance(self) -> float:
        return self.right / self.guessed if self.guessed else 0.0


@dataclass(frozen=True)
class Compared:
    machine: str
    model: str
    draft: str | None
    tokens: int
    """Of a reply."""
    rows: list[Row]


@dataclass(frozen=True)
class Turn:
    seconds: float
    steps: int
    drafted: Drafted
    replies: list[tuple[int, ...]]


def compare(
    model: Model, draft: Model | None, rounds: int, say: Say, *, replies: Sequence[int] = REPLIES, tokens: int = TOKENS,
    temperature: float = 0.0,
) -> Compared:  # fmt: skip
    """Every kind that there is for `model`, `rounds` times in turns after one that does not count, in which an engine
    learns what pays. Raises `AssertionError` where guesses changed a reply."""
    rows = []
    for count in replies:
        engines = _engines(model, draft, count)
        requests = _requests(model, count, tokens, temperature)
        turns: dict[str, list[Turn]] = {kind: [] for kind in engines}
        for number in range(rounds + 1):
            for kind, engine in engines.items():
                say(f"{count} replies, {kind}, round {number}")
                turns[kind].append(_turn(engine, requests))
        rows += [_row(kind, count, turns[kind][1:], turns["none"][1:]) for kind in engines]
    return Compared(machine(), model.name, None if draft is None else draft.name, tokens, rows)


def _engines(model: Model, draft: Model | None, running: int) -> dict[str, Engine]:
    """By who guesses: nobody, each by itself, and whoever pays of all."""
    usual = EngineSettings(running=running, keep_prompts=False)
    parts = None if draft is None else draft.parts
    every = Engine(model.model, model.processor, usual, parts)
    names = list(every.held().drafted)
    alone = {
        name: Engine(model.model, model.processor, usual.model_copy(update={"drafters": (name,)}), parts)
        for name in names
    }
    none = Engine(model.model, model.processor, usual.model_copy(update={"guesses": 0}))
    return {"none": none, **alone, **({"what pays": every} if len(names) > 1 else {})}


def _requests(model: Model, count: int, tokens: int, temperature: float) -> list[Request]:
    """The same for every kind; no reply ends before it is whole."""
    bias = dict.fromkeys(model.processor.stop_tokens, -100.0)
    return [
        Request(
            model.processor.read([{"role": "user", "content": ASKED[number % len(ASKED)]}]), max_tokens=tokens,
            sampling=Sampling(temperature=temperature, seed=number, bias=bias),
        )
        for number in range(max(count, len(ASKED)))
    ]  # fmt: skip


def _turn(engine: Engine, requests: Sequence[Request]) -> Turn:
    said: list[list[int]] = [[] for _ in requests]
    before = sum(engine.held().drafted.values(), Drafted())
    began = time.perf_counter()
    for request, reply in zip(requests, said, strict=True):

        def heard(piece: Piece, reply: list[int] = reply) -> None:
            if piece.error is not None:
                raise piece.error
            reply += [token.token for token in piece.tokens]

        engine.submit(request, heard)
    steps = 0
    while engine.step():
        steps += 1
    after = sum(engine.held().drafted.values(), Drafted())
    drafted = replace(after, guessed=after.guessed - before.guessed, right=after.right - before.right)
    return Turn(time.perf_counter() - began, steps, drafted, [tuple(reply) for reply in said])


def _row(kind: str, running: int, turns: Sequence[Turn], plain: Sequence[Turn]) -> Row:
    for turn in turns:
        assert turn.replies == plain[0].replies, f"{kind}: guesses changed a reply"
    times = [other.seconds / turn.seconds for turn, other in zip(turns, plain, strict=True)]
    last = turns[-1]
    each = sum(map(len, last.replies)) / last.steps / running
    seconds = statistics.median(turn.seconds for turn in turns)
    return Row(
        kind, running, seconds, each, last.drafted.guessed, last.drafted.right, statistics.median(times), min(times),
        max(times),
    )  # fmt: skip

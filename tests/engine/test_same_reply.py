"""A reply is the same, to the token and the last bit of its log-probabilities, whatever else the engine does."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import running
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "facade"))
import kinds

from vlm.api import load
from vlm.engine.engine import Engine, Ticket
from vlm.engine.greedy import greedy
from vlm.engine.request import Drafted, Request, Sampling
from vlm.engine.settings import EngineSettings
from vlm.heads.writer import Writer
from vlm.models.processor import Prompt

SEEING = [
    *((family, torch.float32) for family in ("a card", "SmolVLM", "LLaVA-OneVision", "DeepSeek-VL2")),
    *((family, torch.bfloat16) for family in ("SmolVLM", "DeepSeek-VL2")),
]
PLAIN = {"keep_prompts": False, "pictures_bytes": 0, "guesses": 0}
"""Nothing is remembered, and nothing guessed."""


@pytest.fixture(scope="module", params=SEEING, ids=lambda param: f"{param[0]} {str(param[1])[6:]}")
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Writer:
    folder = tmp_path_factory.mktemp("model")
    family, dtype = request.param
    made = kinds.WRITERS[family](folder)
    found = load(str(made if family == "a card" else folder), dtype=dtype).writer
    assert found is not None
    return found


def engine(writer: Writer, **settings: object) -> Engine:
    chosen = EngineSettings.model_validate({"chunk": 16, "waiting": 1000, **settings})
    return Engine(writer.model, writer.processor, chosen)


def alone(writer: Writer, requests: list[Request]) -> list[running.Heard]:
    """Each in an engine that has seen nothing else."""
    return [running.ask(engine(writer, **PLAIN), [request])[0] for request in requests]


def answers(heard: list[running.Heard]) -> list[dict[int, running.Answer]]:
    return [one.answers for one in heard]


def test_random_requests_over_random_schedules(writer: Writer, request: pytest.FixtureRequest) -> None:
    """Of mixed lengths, with pictures, clips and none, some cancelled, with cache hits and memory taken away."""
    number, schedules = (500, 1) if "a card" in request.node.name else (40, 3)
    media = [*running.pictures(4), *running.clips(2)]
    requests = running.requests(writer, number, number, media)
    expected = answers(alone(writer, requests))
    assert len({str(one) for one in expected}) > number / 2  # the model says something
    need = max(engine(writer)._bytes(len(one.prompt.ids) + one.max_tokens) for one in requests)
    preempted = 0
    for seed in range(schedules):
        chance = random.Random(seed)
        options = {"memory_bytes": chance.choice((need, 2 * need, 3 * need)), "running": chance.choice((2, 5, 16)),
                   "tokens": chance.choice((8, 64, 512)), "keep_prompts": seed != 1}  # fmt: skip
        busy = engine(writer, **options)
        heard, cancelled = [running.Heard() for _ in requests], set()
        tickets: dict[int, Ticket] = {}
        order = chance.sample(range(len(requests)), len(requests))
        while order or busy.step():
            for number in [order.pop() for _ in range(min(len(order), chance.randrange(4)))]:
                tickets[number] = busy.submit(requests[number], heard[number])
            if tickets and chance.random() < 0.05:
                cancelled.add(number := chance.choice(list(tickets)))
                tickets[number].cancel()
            busy.step()
        for number, wanted in enumerate(expected):
            found = heard[number].answers
            if number not in cancelled:
                assert found == wanted, f"request {number} of schedule {seed}"
                continue
            for choice, answer in found.items():  # the beginning of it
                assert answer.tokens == wanted[choice].tokens[: len(answer.tokens)]
                assert wanted[choice].text.startswith(answer.text.rstrip("\N{REPLACEMENT CHARACTER}"))
        assert not busy._replies
        assert busy.nbytes == busy.prompts.nbytes
        preempted += busy.preempted
    assert preempted


def test_a_prompt_that_was_read_before(writer: Writer) -> None:
    requests = running.requests(writer, 12, 2, running.pictures(3))
    busy = engine(writer)
    cold = running.ask(busy, requests)
    encoded = busy.pictures.encoded
    warm = running.ask(busy, requests)
    assert answers(warm) == answers(cold) == answers(alone(writer, requests))
    assert busy.pictures.encoded == encoded
    assert sum(one.usage.cached for one in warm if one.usage) > sum(one.usage.cached for one in cold if one.usage)


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_what_is_guessed_changes_no_reply_and_saves_steps(writer: Writer, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=1, alternatives=1)
    texts = ["red red red red red red red red", "blue wall? blue wall? blue wall?"]
    prompts = [writer.processor.read([{"role": "user", "content": text}]) for text in texts]
    requests = [Request(prompt, max_tokens=24, sampling=sampling) for prompt in prompts]
    steps = {}
    found = {}
    for guesses in (0, 4):
        busy = engine(writer, guesses=guesses)
        found[guesses] = heard = [running.Heard() for _ in requests]
        for request, listener in zip(requests, heard, strict=True):
            busy.submit(request, listener)
        steps[guesses] = 0
        while busy.step():
            steps[guesses] += 1
        drafted = sum(busy.held().drafted.values(), Drafted())
        assert drafted.right <= drafted.guessed
        if drafted.right == 0:
            assert steps[guesses] == steps[0]
    assert answers(found[4]) == answers(found[0])
    assert steps[4] <= steps[0]


def test_greedy_replies_are_those_of_the_plain_way(writer: Writer) -> None:
    if writer.model.dtype != torch.float32:
        pytest.skip("the plain way adds up in another order: in bfloat16 that shows")
    prompts = running.prompts(writer, 8, 3, running.pictures(3))
    stop = writer.processor.stop_tokens
    plain = greedy(writer.model.language, [embedded(writer, prompt) for prompt in prompts], stop=stop, max_tokens=12)
    expected = [writer.processor.decode(reply).strip() for reply in plain]
    assert writer.write(prompts, max_tokens=12, batch=4) == expected
    assert writer.write(prompts, max_tokens=12, batch=1) == expected


def embedded(writer: Writer, prompt: Prompt) -> torch.Tensor:
    """`[T, D]`."""
    shown = [
        tokens
        for item, layout in zip(prompt.media, prompt.layouts, strict=True)
        for tokens in writer.visual(item, layout)
    ]
    return writer.model.embed(torch.tensor([prompt.ids]), shown)[0]

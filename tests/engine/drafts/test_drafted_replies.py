"""Whoever guesses, and however badly, every reply is the one that is written without guesses."""

from __future__ import annotations

import random
from collections.abc import Callable

import guessing
import numpy as np
import pytest
import running
import tiny
import torch
from scipy.stats import chisquare

import vlm
from vlm.engine.constraint import Vocabulary, choices
from vlm.engine.engine import Engine
from vlm.engine.job import Reply
from vlm.engine.request import Drafted, Request, Sampling
from vlm.facade import Model

Makes = Callable[..., Engine]


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Model:
    found = vlm.load(tiny.write_card(tmp_path_factory.mktemp("card")))
    found.processor.stop_tokens = frozenset()
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return vlm.load(guessing.write(tmp_path_factory.mktemp("draft"), guessing.SMALL, "llama"))


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = guessing.write(tmp_path_factory.mktemp("heads"), guessing.latent(2), "deepseek_v3")
    return vlm.load(folder, multi_token=True)


@pytest.fixture(params=["a draft model", "itself", "right", "wrong", "chance", "strange", "heads"])
def case(
    request: pytest.FixtureRequest, card: Model, small: Model, headed: Model
) -> tuple[str, Model, Callable[[list[Request]], Makes]]:
    """A name, the model that writes, and for requests what makes engines that guess."""
    kind: str = request.param
    if kind in ("a draft model", "itself", "heads"):
        model = headed if kind == "heads" else card
        draft = {"a draft model": small, "itself": card}.get(kind)
        return kind, model, lambda asked: lambda **settings: guessing.engine(model, draft, **settings)

    def scripted(asked: list[Request]) -> Makes:
        known = {id(one.prompt): answer for one, answer in zip(asked, guessing.plain(card, asked), strict=True)}

        def says(reply: Reply, most: int) -> list[int]:
            whole = [token.token for token in known[id(reply.job.request.prompt)][reply.choice].tokens]
            right = whole[len(reply.tokens) :][:most]
            if kind == "right":
                return right
            if kind == "wrong":
                return [(token + 1) % 320 for token in right]
            chance = random.Random(len(reply.tokens))
            if kind == "chance":
                return [token if chance.random() < 0.7 else chance.randrange(320) for token in right]
            return [card.processor.image_token, *right]  # a slot is no word

        return lambda **settings: guessing.scripted(card, guessing.Script(says), **settings)

    return kind, card, scripted


def drafted(busy: Engine) -> Drafted:
    return sum(busy.held().drafted.values(), Drafted())


def asked_of(model: Model, number: int, seed: int) -> list[Request]:
    assert model.writer is not None
    if model.model.tower is not None:
        return running.requests(model.writer, number, seed, [*running.pictures(3), *running.clips(1)])
    chance = random.Random(seed)
    return [
        Request(
            model.processor.read([{"role": "user", "content": " ".join(chance.choices(running.WORDS, k=12))}]),
            max_tokens=chance.randrange(1, 30), n=chance.choice((1, 2)),
            sampling=Sampling(temperature=chance.choice((0, 0.7)), seed=chance.randrange(9), alternatives=1),
        )
        for _ in range(number)
    ]  # fmt: skip


def test_one_reply_and_many(case: tuple[str, Model, Callable[[list[Request]], Makes]]) -> None:
    kind, model, making = case
    requests = asked_of(model, 24, 1)
    expected, make = guessing.plain(model, requests), making(requests)
    alone = [running.ask(busy := make(), [one])[0].answers for one in requests[:6]]
    assert alone == expected[:6]
    busy = make()
    assert [one.answers for one in running.ask(busy, requests)] == expected
    count = drafted(busy)
    if kind == "strange":
        assert count.guessed == 0
    elif kind == "right":
        assert count.right == count.guessed > 50
    elif kind == "wrong":
        assert count.right == 0 < count.guessed
    else:
        assert count.guessed > 50
    if kind in ("itself", "chance"):
        assert 0 < count.right <= count.guessed


def test_memory_taken_away_and_requests_that_go(
    case: tuple[str, Model, Callable[[list[Request]], Makes]],
) -> None:
    _, model, making = case
    requests = asked_of(model, 30, 2)
    expected, make = guessing.plain(model, requests), making(requests)
    need = max(make()._bytes(len(one.prompt.ids) + one.max_tokens) for one in requests)
    chance, busy = random.Random(0), make(memory_bytes=2 * need, running=6, tokens=64)
    heard, gone = [running.Heard() for _ in requests], set()
    for number, one in enumerate(requests):
        ticket = busy.submit(one, heard[number])
        if chance.random() < 0.2:
            gone.add(number)
            for _ in range(chance.randrange(6)):
                busy.step()
            ticket.cancel()
        busy.step()
        assert busy.nbytes <= 2 * need
    running.finish(busy)
    for number, wanted in enumerate(expected):
        if number not in gone:
            assert heard[number].answers == wanted
        for choice, answer in heard[number].answers.items():
            assert answer.tokens == wanted[choice].tokens[: len(answer.tokens)]
    assert busy.preempted
    assert busy.nbytes == busy.prompts.nbytes


def test_constraints_and_stop_strings(case: tuple[str, Model, Callable[[list[Request]], Makes]]) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed (pip: vlm[serve])")
    _, model, making = case
    vocabulary = Vocabulary(model.processor.tokenizer, 320, frozenset({0}))
    prompt = asked_of(model, 1, 3)[0].prompt
    free = guessing.plain(model, [Request(prompt, max_tokens=30)])[0][0]
    word = free.text.strip()[3:5]
    requests = [
        Request(prompt, max_tokens=30, stop=(word,) if word else ()),
        Request(prompt, max_tokens=30, constraint=choices(vocabulary, ["a red square", "a red wall"])),
    ]
    for one in requests:
        assert running.ask(making([one])(), [one])[0].answers == guessing.plain(model, [one])[0]


def test_draws_follow_the_chances_of_the_model(card: Model) -> None:
    """Three tokens of three that may come at each place: chi-square over many seeds, and the reply without guesses."""
    prompt = card.processor.read([{"role": "user", "content": "red wall?"}])
    sampling = Sampling(temperature=1.5, top_k=3)
    chances: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        behind: dict[tuple[int, ...], float] = {}
        for said, chance in chances.items():
            logits_V = card.logits(torch.tensor([[*prompt.ids, *said]]))[0, -1]
            best = logits_V.topk(3)
            shares = (best.values / 1.5).softmax(0)
            behind |= {(*said, int(t)): chance * float(p) for t, p in zip(best.indices, shares, strict=True)}
        chances = behind
    seeds = 1500
    requests = [
        Request(prompt, max_tokens=3, sampling=Sampling(sampling.temperature, 3, seed=seed)) for seed in range(seeds)
    ]
    busy = guessing.engine(card, card, waiting=seeds, drafters=("draft",))
    found = [tuple(token.token for token in one.answers[0].tokens) for one in running.ask(busy, requests)]
    assert drafted(busy).right > 0
    assert found[:40] == [tuple(token.token for token in one[0].tokens) for one in guessing.plain(card, requests[:40])]
    counts = np.array([found.count(one) for one in chances])
    assert counts.sum() == seeds
    expected = np.array(list(chances.values())) * seeds
    rare = expected < 5
    counts, expected = [np.append(x[~rare], x[rare].sum()) if rare.any() else x for x in (counts, expected)]
    assert chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 0.01

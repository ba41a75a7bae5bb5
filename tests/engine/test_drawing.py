"""The next token: what is asked for means what it means in transformers, and draws follow the chances."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vlm.conversation.packing import IMAGE_SLOT
from vlm.engine.request import Sampling, Token
from vlm.engine.sampling import MOST_ALTERNATIVES, candidates, check, chosen
from vlm.errors import BadInput, VlmError

VOCAB = 2000


def logits(seed: int = 0, size: int = VOCAB, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def choose(logits_V: torch.Tensor, *, said: tuple[int, ...] = (), prompt: tuple[int, ...] = (), place: int = 0,
           choice: int = 0, seed: int = 0, allowed: np.ndarray | None = None, **sampling: Any) -> Token:  # fmt: skip
    return chosen(logits_V, Sampling(**sampling), said, prompt, place, choice, seed, allowed)


SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 40},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.01},
    {"temperature": 2.0, "min_p": 0.02},
    {"temperature": 0.6, "top_k": 100, "top_p": 0.8, "min_p": 0.01},
    {"temperature": 5.0, "top_k": 5000, "top_p": 0.999, "min_p": 0.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_drawn_from_is_what_transformers_keeps(settings: dict[str, Any], seed: int) -> None:
    scores = logits(seed)
    theirs = LogitsProcessorList([TemperatureLogitsWarper(settings["temperature"])])
    if "top_k" in settings:
        theirs.append(TopKLogitsWarper(settings["top_k"]))
    if "top_p" in settings:
        theirs.append(TopPLogitsWarper(settings["top_p"]))
    if "min_p" in settings:
        theirs.append(MinPLogitsWarper(settings["min_p"]))
    expected = theirs(torch.zeros(1, 1, dtype=torch.long), scores[None].clone())[0]
    ids, chances = candidates(scores, Sampling(**settings))
    assert ids.tolist() == expected.isfinite().nonzero()[:, 0].tolist()
    torch.testing.assert_close(torch.from_numpy(chances), expected.softmax(0)[ids].double(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.8, 1.3])
def test_bias_and_repetition_weigh_as_in_transformers(penalty: float) -> None:
    prompt, said, bias = (3, 8, 8, 40), (5, 3, 5, 5), {3: 9.0, 11: -4.0, 7: 2.5}
    theirs = LogitsProcessorList(
        [
            SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()]),
            RepetitionPenaltyLogitsProcessor(penalty),
        ]
    )
    for seed in range(20):
        scores = logits(seed, 50)
        expected = theirs(torch.tensor([[*prompt, *said]]), scores[None].clone())[0].argmax()
        slots = (IMAGE_SLOT, IMAGE_SLOT)  # no words, so nothing is said again by them
        told = choose(scores, said=said, prompt=slots + prompt, bias=bias, repetition_penalty=penalty)
        assert told.token == expected


def test_presence_and_frequency_are_taken_of_tokens_of_the_reply() -> None:
    scores = torch.tensor([5.0, 4.6, 4.2, 0.0])
    assert choose(scores, said=(0,), prompt=(1, 1), presence_penalty=0.3).token == 0
    assert choose(scores, said=(0,), presence_penalty=0.5).token == 1
    assert choose(scores, said=(0, 0, 0), presence_penalty=0.3).token == 0  # once, however often
    assert choose(scores, said=(0, 0, 0), frequency_penalty=0.2).token == 1
    assert choose(scores, said=(0, 0, 0, 1, 1), frequency_penalty=0.3).token == 2


def test_the_logits_stay_as_they_are() -> None:
    scores = logits()
    before = scores.clone()
    choose(scores, said=(1, 2), bias={3: 5.0}, repetition_penalty=2.0, presence_penalty=1.0, temperature=1.0, top_p=0.5,
           allowed=np.arange(VOCAB) % 2 == 0, alternatives=3)  # fmt: skip
    assert torch.equal(scores, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_greedy_takes_the_likeliest_and_of_equal_ones_the_first(dtype: torch.dtype) -> None:
    scores = logits().to(dtype)
    assert choose(scores).token == int(scores.float().argmax())
    scores[[700, 1900, 31]] = 50
    assert choose(scores).token == 31
    assert choose(scores, temperature=1.0, top_k=1, top_p=1e-9).token == 31  # ties at the edge: the first of them


def test_only_what_is_allowed_comes() -> None:
    scores, allowed = logits(), np.zeros(VOCAB, bool)
    allowed[[5, 6, 1999]] = True
    assert choose(scores, allowed=allowed).token == max((5, 6, 1999), key=lambda token: scores[token])
    drawn = {choose(scores, allowed=allowed, temperature=50.0, place=place).token for place in range(100)}
    assert drawn == {5, 6, 1999}
    # A bias or a penalty does not let in what is not allowed.
    assert choose(scores, allowed=allowed, bias={7: 1e6}).token in (5, 6, 1999)


def test_where_nothing_may_come_it_is_said() -> None:
    with pytest.raises(VlmError, match="place 4 of the reply: expected a token that may come"):
        choose(logits(), allowed=np.zeros(VOCAB, bool), place=4)
    broken = logits()
    broken[9] = math.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(VlmError, match="got logits of at most nan"):
            choose(broken, temperature=temperature)


@pytest.mark.parametrize("settings", [{}, {"top_k": 6}, {"top_p": 0.8}, {"min_p": 0.1}], ids=str)
def test_draws_follow_the_chances(settings: dict[str, Any]) -> None:
    scores = logits(3, 12, scale=1.0)
    ids, chances = candidates(scores, Sampling(temperature=0.9, **settings))
    count = 4000
    drawn = Counter(choose(scores, temperature=0.9, place=place, seed=11, **settings).token for place in range(count))
    assert set(drawn) <= set(ids.tolist())
    assert chisquare([drawn[token] for token in ids.tolist()], chances * count).pvalue > 1e-3


def test_a_draw_depends_on_seed_choice_and_place_alone() -> None:
    scores = torch.zeros(10_000)  # almost any two draws differ

    def draws(seed: int, choice: int) -> list[int]:
        return [choose(scores, temperature=1.0, seed=seed, choice=choice, place=place).token for place in range(50)]

    first = draws(7, 0)
    again = [choose(scores, temperature=1.0, seed=7, place=place, said=(1, 2)).token for place in reversed(range(50))]
    assert again == first[::-1]
    rows = [first, draws(7, 1), draws(8, 0), draws(-7, 0), draws(7 + 2**40, 0)]
    assert len({token for row in rows for token in row}) > 235


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_are_those_of_the_raw_logits(dtype: torch.dtype) -> None:
    scores = logits().to(dtype)
    expected = scores.float().log_softmax(0)
    allowed = np.arange(VOCAB) % 3 == 0
    told = choose(scores, temperature=0.5, top_k=5, bias={3: 2.0}, allowed=allowed, alternatives=4)
    assert told.logprob == float(expected[told.token])
    assert [chance.logprob for chance in told.top] == expected.topk(4).values.tolist()
    assert [float(expected[chance.token]) for chance in told.top] == [chance.logprob for chance in told.top]
    assert told.token % 3 == 0
    assert choose(scores, alternatives=0).top == ()
    assert choose(scores, alternatives=0).logprob == float(expected.max())
    assert choose(scores) == Token(int(expected.argmax()))


def test_of_equal_alternatives_the_first_are_told() -> None:
    scores = torch.zeros(500)
    scores[[400, 300]] = 1.0
    assert [chance.token for chance in choose(scores, alternatives=4).top] == [300, 400, 0, 1]
    assert len(choose(torch.zeros(3), alternatives=10).top) == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -0.1}, "temperature: expected a number of at least 0, got -0.1"),
        ({"temperature": math.nan}, "temperature: expected a number of at least 0, got nan"),
        ({"temperature": math.inf}, "temperature: expected a number of at least 0, got inf"),
        ({"top_k": 0}, "top_k: expected a number of at least 1, got 0"),
        ({"top_p": 0.0}, "top_p: expected a number above 0 and up to 1, got 0.0"),
        ({"min_p": 1.5}, "min_p: expected a number from 0 to 1, got 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: expected a number above 0, got 0.0"),
        ({"presence_penalty": math.inf}, "presence_penalty: expected a number, got inf"),
        ({"alternatives": 21}, f"alternatives: expected a number from 0 to {MOST_ALTERNATIVES}, got 21"),
        ({"bias": {-1: 1.0}}, "bias: expected tokens from 0 to 1999, got -1"),
        ({"bias": {2000: 1.0}}, "bias: expected tokens from 0 to 1999, got 2000"),
        ({"bias": {3: math.nan}}, "bias: expected a number for token 3, got nan"),
    ],
)
def test_what_no_token_can_be_chosen_by_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        check(Sampling(**settings), VOCAB)
    assert str(error.value) == said


def test_what_can_be_is_not_refused() -> None:
    for settings in (*SETTINGS, {}, {"bias": {0: -100.0, 1999: 100.0}, "alternatives": 0}):
        check(Sampling(**settings), VOCAB)

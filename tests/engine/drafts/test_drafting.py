"""Rows are shared among replies, and a drafter that fails costs no reply."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import guessing
import pytest
import running
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import vlm
from vlm.engine.drafts.drafting import shares
from vlm.engine.job import Reply
from vlm.engine.request import Drafted, Request
from vlm.facade import Model


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Model:
    found = vlm.load(tiny.write_card(tmp_path_factory.mktemp("card")))
    found.processor.stop_tokens = frozenset()
    return found


def asked(model: Model, **options: object) -> Request:
    prompt = model.processor.read([{"role": "user", "content": "red wall?"}])
    return Request(prompt, **{"max_tokens": 40, **options})  # type: ignore[arg-type]


@given(st.integers(0, 40), st.lists(st.integers(0, 5), max_size=12))
def test_shares_are_even(rows: int, wishes: list[int]) -> None:
    given_ = shares(rows, wishes)
    assert sum(given_) == min(rows, sum(wishes))
    assert all(0 <= share <= wish for share, wish in zip(given_, wishes, strict=True))
    unfulfilled = [share for share, wish in zip(given_, wishes, strict=True) if share < wish]
    assert all(share <= least + 1 for least in unfulfilled for share in given_)


def test_a_drafter_that_fails_is_asked_no_more(card: Model, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fails(reply: Reply, most: int) -> list[int]:
        calls.append(most)
        raise MemoryError

    busy = guessing.scripted(card, guessing.Script(fails))
    with caplog.at_level(logging.ERROR):
        (heard,) = running.ask(busy, [asked(card)])
    assert heard.answers == guessing.plain(card, [asked(card)])[0]
    assert len(calls) == 1
    assert "drafter draft failed, and is not asked any more" in caplog.text


@pytest.mark.parametrize("logit", [-math.inf, math.nan])
def test_a_draft_model_that_says_nothing_is_merely_wrong(
    card: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logit: float
) -> None:
    draft = vlm.load(guessing.write(tmp_path, guessing.SMALL, "llama"))
    monkeypatch.setattr(draft.model.language, "logits", lambda x_BD: torch.full((len(x_BD), 320), logit))
    busy = guessing.engine(card, draft, drafters=("draft",))
    (heard,) = running.ask(busy, [asked(card)])
    assert heard.answers == guessing.plain(card, [asked(card)])[0]
    assert busy.held().drafted["draft"].guessed > 10


def test_guesses_are_counted_by_who_made_them(card: Model) -> None:
    whole = [token.token for token in guessing.plain(card, [asked(card)])[0][0].tokens]

    def every_second(reply: Reply, most: int) -> list[int]:
        """Right up to an even place, and wrong behind it."""
        begin = len(reply.tokens)
        return [
            token if place % 2 or place == begin else token + 1
            for place, token in enumerate(whole[begin:][:most], begin)
        ]

    busy = guessing.scripted(card, guessing.Script(every_second, most=2))
    (heard,) = running.ask(busy, [asked(card)])
    assert [token.token for token in heard.answers[0].tokens] == whole
    count = busy.held().drafted["draft"]
    assert 0 < count.right < count.guessed


def test_no_more_is_guessed_than_a_reply_may_have(card: Model) -> None:
    longest = []

    def right(reply: Reply, most: int) -> list[int]:
        longest.append(len(reply.tokens) + most + 1)
        return [1] * most

    running.ask(guessing.scripted(card, guessing.Script(right)), [asked(card, max_tokens=5)])
    assert max(longest) <= 5


def test_without_guesses_nobody_is_asked(card: Model) -> None:
    busy = guessing.engine(card, card, told=False, guesses=0)
    running.ask(busy, [asked(card)])
    assert busy.held().drafted == {}
    only = guessing.engine(card, card, told=False, drafters=("lookup",))
    assert only.held().drafted == {"lookup": Drafted()}
    assert only._bytes(10) == busy._bytes(10)

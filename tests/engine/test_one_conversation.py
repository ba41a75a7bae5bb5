"""Replies one at a time: what is remembered between them, and that it changes none of them."""

from __future__ import annotations

import threading

import pytest
import running
import tiny
import torch

from vlm.api import load
from vlm.conversation.messages import read_messages
from vlm.errors import BadInput
from vlm.facade import Model

PICTURE, OTHER = running.pictures(2)


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    found = load(str(tiny.write_card(tmp_path_factory.mktemp("tiny"))))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    found.processor.stop_tokens = frozenset()  # replies are as long as they may be
    return found


def said(text: str, *media: object) -> list[dict[str, object]]:
    shown = [{"type": "image", "image": item} for item in media]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def encoded(model: Model) -> int:
    """Visual tokens, so far."""
    assert model.writer is not None
    return model.writer.replies.engine(1).pictures.encoded


def test_a_second_question_about_a_picture_encodes_nothing(model: Model) -> None:
    first = said("What color?", PICTURE)
    reply = model.chat(first, max_tokens=4)
    picture = encoded(model)
    assert picture > 0
    longer = [*first, {"role": "assistant", "content": reply}, *said("Is there a dog?")]
    warm = model.chat(longer, max_tokens=8)
    assert encoded(model) == picture
    model.chat(said("What color?", OTHER), max_tokens=2)
    assert encoded(model) == 2 * picture
    assert model.writer is not None
    model.writer.replies._engine = None
    assert model.chat(longer, max_tokens=8) == warm


def test_other_weights_forget_what_was_seen(model: Model) -> None:
    question = said("What color?", PICTURE)
    before = model.chat(question, max_tokens=12)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    after = model.chat(question, max_tokens=12)
    assert after != before
    assert model.writer is not None
    model.writer.replies._engine = None
    assert model.chat(question, max_tokens=12) == after


def test_a_reply_that_nobody_waits_for_ends(model: Model) -> None:
    pieces = model.chat(said("wall?"), stream=True, max_tokens=150)
    next(pieces)
    pieces.close()
    assert model.chat(said("Is there a dog?"), max_tokens=4) == model.chat(said("Is there a dog?"), max_tokens=4)
    assert model.writer is not None
    engine = model.writer.replies.engine(1)
    assert engine.nbytes == engine.prompts.nbytes


def test_a_reply_that_is_over_leaves_no_thread(model: Model) -> None:
    """One that is in the middle of a step when Python ends would end it with a crash."""
    before = threading.active_count()
    pieces = model.chat(said("wall?"), stream=True, max_tokens=50)
    next(pieces)
    assert threading.active_count() == before + 1
    pieces.close()
    assert threading.active_count() == before
    model.chat(said("wall?"), max_tokens=4)
    assert threading.active_count() == before


def test_threads_ask_one_model(model: Model) -> None:
    questions = [said("What color?", PICTURE), said("Is there a dog?"), said("wall?", OTHER)]
    alone = [model.chat(question, max_tokens=8) for question in questions]
    found: list[str] = [""] * 3

    def ask(place: int) -> None:
        found[place] = model.chat(questions[place], max_tokens=8)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_drawn_replies(model: Model) -> None:
    question = said("What color?", PICTURE)
    greedy = model.chat(question, max_tokens=12)
    drawn = [model.chat(question, max_tokens=12, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({greedy, *drawn}) == 3
    assert model.chat(question, max_tokens=12, temperature=1.5, top_p=1e-6) == greedy
    middle = greedy[len(greedy) // 2]
    assert model.chat(question, max_tokens=12, stop=[middle]) == greedy[: greedy.index(middle)].strip()
    with pytest.raises(BadInput, match="top_p: expected a number above 0"):
        model.chat(question, top_p=0.0, stream=True, max_tokens=4)


def test_what_fails_is_said_and_the_next_reply_is_whole(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    question = said("What color?", PICTURE)
    expected = model.chat(question, max_tokens=6)

    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.model.language, "step", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.chat(question, max_tokens=6)
    monkeypatch.undo()
    assert model.chat(question, max_tokens=6) == expected


def test_batches_of_any_size_say_the_same(model: Model) -> None:
    questions = [f"What color is wall {number}?" for number in range(300)]
    asked = [read_messages(said(text)) for text in questions]
    alone = model.replies(asked[:3], max_tokens=2, batch=1)
    assert model.replies(asked, max_tokens=2, batch=300)[:3] == alone
    assert model.replies([], max_tokens=2) == []
    with pytest.raises(BadInput, match="batch: expected at least 1, got 0"):
        model.replies(asked, max_tokens=2, batch=0)

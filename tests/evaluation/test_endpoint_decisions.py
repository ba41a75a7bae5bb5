"""What is asked of an endpoint's `/v1/decisions`, what is read of its answers, and endpoints that decide nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, options
from PIL import Image
from squares import write_benchmark

from vlm.conversation.messages import Conversation, Message, Part, question
from vlm.errors import BadInput
from vlm.evaluation.endpoint.decisions import body_of, log_probabilities
from vlm.evaluation.run import evaluate
from vlm.heads.decisions import Choice, YesNo
from vlm.heads.decisions.questions import softmax
from vlm.media.open import Media

PICTURE = Media((Image.new("RGB", (4, 4), "red"),))


def answer(*chances: float, labels: tuple[str, ...] = ("yes", "no"), **more: Any) -> bytes:
    pairs = [{"value": value, "probability": chance} for value, chance in zip(labels, chances, strict=True)]
    return json.dumps({"answers": [{"type": "choice", "probabilities": pairs, **more}]}).encode()


def test_the_words_are_the_question_and_pictures_are_before_them() -> None:
    system = Message("system", (Part("text", "Look well."),))
    said = Conversation((system, *question("Is it red?", False)), (PICTURE,))
    body = body_of(said, YesNo("Is it red?"))
    before, last = body["input"]
    assert before == {"role": "system", "content": [{"type": "input_text", "text": "Look well."}]}
    assert [part["type"] for part in last["content"]] == ["input_image"]
    assert last["content"][0]["image_url"].startswith("data:image/png;base64,")
    (asked,) = body["questions"]
    assert asked == {
        "type": "choice", "instructions": "Is it red?", "choices": [{"value": "yes"}, {"value": "no"}],
    }  # fmt: skip
    late = Message("user", (Part("text", "Is it red?"), Part("image")))
    with pytest.raises(BadInput, match="expected its words after its pictures"):
        body_of(Conversation((late,), (PICTURE,)), YesNo("Is it red?"))


def test_a_temperature_that_the_server_applied_is_taken_back() -> None:
    own = (-1.0, -4.0, -2.0)
    which = Choice("Which?", ("a", "b", "c"))
    for temperature in (None, 0.5, 3.0):
        chances = softmax(own, temperature or 1.0)
        found = log_probabilities(answer(*chances, labels=("a", "b", "c"), temperature=temperature), which)
        assert found is not None
        assert [one - found[0] for one in found] == pytest.approx([one - own[0] for one in own], abs=1e-12)


def test_a_probability_that_is_0_stays_finite_and_what_is_no_decision_is_none() -> None:
    found = log_probabilities(answer(1.0, 0.0), YesNo("Is it?"))
    assert found is not None
    assert found[0] == 0
    assert -math.inf < found[1] < -700
    for content in (
        b"", b"[]", b'{"answers": []}', answer(0.5, 0.5, labels=("a", "b")), answer(0.5, math.nan),
        b'{"answers": [{"probability": 0.5}]}', answer(0.5, -0.5, temperature="hot"),
    ):  # fmt: skip
        assert log_probabilities(content, YesNo("Is it?")) is None


def test_an_endpoint_that_decides_nothing_is_told_in_one_line(tmp_path: Path) -> None:
    rows = [{"color": "red", "question": f"Is it red? {n}", "answers": ["yes"]} for n in range(2)]
    card = write_benchmark(tmp_path / "data", rows, kind="vqa")
    with (
        ChatServer(lambda body: "yes").running() as server,
        pytest.raises(BadInput, match=r"expected OpenAI's decisions \(--decide\), got 404: no /v1/decisions"),
    ):
        evaluate(server.url, [card], options(tmp_path, decide=True))

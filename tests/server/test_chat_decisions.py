"""`/v1/decisions` and `/v1/systemone`: what the model's own decisions are, in OpenAI's and transformers' shapes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from chatting import HELLO, Script, Waiting, chatting, data_url, openai_client
from serving import picture, wait

from vlm.facade import Model
from vlm.heads.decisions import Choice, Score, YesNo
from vlm.heads.decisions.decider import Decider, Temperatures
from vlm.server.chat.decisions import LABELS

VALUES = [{"value": "a cat", "description": "or a lion"}, {"value": True}]
QUESTIONS: list[dict[str, Any]] = [
    {"type": "predicate", "instructions": "Is it red?", "name": "red"},
    {"type": "choice", "instructions": "Which?", "choices": VALUES},
    {"type": "score", "instructions": "How?", "levels": [{"label": "low"}, {"label": "high"}], "name": "level"},
]  # fmt: skip
ASKED = [
    YesNo("Is it red?"),
    Choice("Which?", ("a cat", "true"), about={"a cat": "or a lion"}),
    Score("How?", ("low", "high")),
]


@pytest.fixture
def client(tiny_model: Model) -> Iterator[httpx.Client]:
    """A chat server with the two routes."""
    assert tiny_model.writer is not None
    decider = Decider(tiny_model.writer, Temperatures({"choice": 2.0}, "decision.json"))
    with chatting(tiny_model, Script(), decider=decider) as found:
        yield found


def address() -> str:
    return data_url()


def test_openais_client_gets_the_models_own_decisions(client: httpx.Client, tiny_model: Model) -> None:
    said = [{"type": "input_text", "text": "Look: "}, {"type": "input_image", "image_url": address()}]
    with openai_client(client) as openai:
        found = openai.decisions.create(model="tiny", input=[{"role": "user", "content": said}], questions=QUESTIONS)
    own = [{"role": "user", "content": [said[0], {"type": "image", "image": picture()}]}]
    (expected,) = tiny_model.decide([own], ASKED)
    yes, which, level = found.answers
    assert (yes.type, yes.name) == ("predicate", "red")
    assert yes.probability == pytest.approx(expected[0].probabilities["yes"], abs=1e-4)
    assert [one.value for one in which.probabilities] == ["a cat", True]
    assert which.choice in ("a cat", True)
    assert (which.temperature, which.temperature_from) == (2.0, "decision.json")
    assert (yes.temperature, yes.temperature_from) == (None, None)
    assert [(one.label, one.value) for one in level.probabilities] == [("low", 0), ("high", 1)]
    assert level.score == pytest.approx(expected[2].score, abs=1e-4)
    assert level.mass == pytest.approx(expected[2].mass, rel=1e-3)
    assert found.usage.input_tokens == found.usage.total_tokens > 0


def test_transformers_shape(client: httpx.Client, tiny_model: Model) -> None:
    body = {
        "model": "tiny", "state": {"photo": "img-1", "text": "A red square."},
        "assets": {"img-1": {"data_base64": base64.b64encode(picture()).decode()}},
        "questions": {
            "red": {"type": "noul", "instructions": "Is it red?"},
            "which": {"type": "choice", "instructions": "Which?", "criteria": {"a cat": "or a lion", "dog": None}},
            "how": {"type": "score", "instructions": "How?", "criteria": ["low", "high"]},
        },
    }  # fmt: skip
    found = client.post("/v1/systemone", json=body).json()
    assert list(found["answers"]) == ["red", "which", "how"]
    assert found["answers"]["red"].keys() == {"type", "noul", "mass", "temperature", "temperature_from"}
    assert found["answers"]["how"]["legend"] == {"0": "low", "1": "high"}
    assert sum(found["answers"]["which"]["probabilities"].values()) == pytest.approx(1)
    own = [{"role": "user", "content": [
        {"type": "text", "text": '{"photo": "'}, {"type": "image", "image": picture()},
        {"type": "text", "text": '", "text": "A red square."}'},
    ]}]  # fmt: skip
    ((expected,),) = tiny_model.decide([own], [YesNo("Is it red?")])
    assert found["answers"]["red"]["noul"] == pytest.approx(expected.probabilities["yes"], abs=1e-4)


@pytest.mark.parametrize(
    ("route", "body", "status", "message"),
    [
        ("decisions", {"input": "x", "questions": []}, 422, "questions"),
        ("decisions", {"input": "x", "questions": [{"type": "rank", "instructions": "?"}]}, 422, "type"),
        ("decisions", {"input": "x", "questions": QUESTIONS, "colour": 1}, 422, "colour"),
        ("decisions", {"input": HELLO, "questions": QUESTIONS, "model": "other"}, 404, "other"),
        ("decisions", {"input": "x", "questions": [{"type": "predicate", "instructions": " "}]}, 400, "is empty"),
        ("decisions", {"input": "word " * 400, "questions": QUESTIONS}, 400, "256"),
        ("systemone", {"state": "x", "questions": {}}, 422, "questions"),
        ("systemone", {"state": "x", "questions": {"q": {"type": "rank"}}}, 400, "question 'q'"),
        ("systemone", {"state": "x", "questions": {"q": {"type": "noul", "instructions": "?"}},
                       "assets": {"img": {"data_base64": "AA=="}}}, 422, "expected 'img' somewhere in the state"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_refused(
    client: httpx.Client, route: str, body: dict[str, Any], status: int, message: str
) -> None:
    answer = client.post(f"/v1/{route}", json=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_labels_are_bounded(client: httpx.Client) -> None:
    many = {"type": "score", "instructions": "How?", "levels": [{"label": f"level {n}"} for n in range(200)]}
    answer = client.post("/v1/decisions", json={"input": "x", "questions": [many] * 6})
    assert answer.status_code == 413
    assert f"at most {LABELS} labels in all, got 1200" in answer.json()["error"]["message"]


def test_who_goes_away_ends_the_decision_and_the_next_one_has_its_turn(tiny_model: Model) -> None:
    decider, body = Waiting(tiny_model), {"input": "x", "questions": QUESTIONS}
    with chatting(tiny_model, Script(), decider=decider) as client:
        try:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/decisions", json=body, timeout=1)
            wait(lambda: decider.ended, 30)
            assert decider.begun == 1
        finally:
            decider.go.set()
        assert client.post("/v1/decisions", json=body).status_code == 200
        assert (decider.begun, decider.ended) == (2, 2)

"""A judge of replies, examples before a question, a system turn, settings by card and by model, and conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, color, pictures, words
from squares import COLORS, FakeModel, write_benchmark

from vlm.errors import BadInput
from vlm.evaluation import models
from vlm.evaluation.asking import Judge
from vlm.evaluation.endpoint.client import EndpointOptions
from vlm.evaluation.predictions import Predictions
from vlm.evaluation.results import Sample, TaskResult, read_samples
from vlm.evaluation.run import Options, evaluate
from vlm.evaluation.task_types.judging import kappa, read_judgement

ROWS = [
    {"id": f"q{i}", "color": c, "question": f"What color is {i}?", "answers": [c]}
    for i, c in enumerate([*COLORS, "red"])
]  # fmt: skip


def run(folder: Path, model: Any, rows: list[dict[str, Any]] = ROWS, by: str | None = None, **card: Any) -> Any:
    path = write_benchmark(folder / "data", [dict(row) for row in rows], **card)
    options = Options(str(folder / "data"), output=folder / "run", judge=by, endpoint=EndpointOptions(2, 0))
    [result] = evaluate(model, [path], options)
    samples: list[Sample] = list(read_samples(folder / "run" / result.task))
    return result, samples


def body(**card: Any) -> dict[str, Any]:
    return {"kind": "vqa", "max_tokens": 8, **card}


class Named(FakeModel):
    """A judge that `load` gives."""

    name = "the judge"


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that a judge is asked: it says yes where the answer has the reference in it, and is lenient of q3."""
    asked: list[str] = []

    def rule(_: str, prompt: str) -> str:
        asked.append(prompt)
        lines = dict(line.partition(": ")[::2] for line in prompt.splitlines())
        if "color is 2" in prompt:
            return "I cannot tell."
        return "Yes, it does." if lines["Reference answer"] in lines["Answer to be judged"] else "No."

    class Reads(Named):
        def replies(self, conversations: Any, *, max_tokens: int, batch: int) -> list[str]:
            assert all(not said.media for said in conversations)
            return [rule("", said.messages[-1].text) for said in conversations]

    reads = Reads(weights="judge")
    reads.writer = reads.about = None
    monkeypatch.setattr(models, "load", lambda name: reads)
    monkeypatch.setattr(models, "writes", lambda model: True)
    return asked


def test_a_judges_verdicts_are_kept_and_held_against_the_protocol(tmp_path: Path, judging: list[str]) -> None:
    model = FakeModel(lambda color, question: f"It is {color}." if "3" in question else color)
    result, samples = run(tmp_path, model, by="any", **body(judge={}))
    assert [s.scores["accuracy"] for s in samples] == [1, 1, 1, 0]
    assert [s.scores["judged"] for s in samples] == [1, 1, 0, 1]
    assert [s.judgement for s in samples] == ["Yes, it does.", "Yes, it does.", "I cannot tell.", "Yes, it does."]
    values = {name: result.figures[name].value for name in ("judged", "accuracy", "agreement", "judge_unreadable")}
    assert (result.main, values) == ("judged", {"judged": 75, "accuracy": 75, "agreement": 50, "judge_unreadable": 25})
    assert result.figures["kappa"].value == pytest.approx(kappa(np.array([[1, 1], [1, 1], [0, 1], [1, 0]])))
    assert "1 replies of the judge could not be read and count as wrong" in result.notes
    assert any(note.startswith("judged by the judge (weights judge)") for note in result.notes)
    assert judging[0].splitlines()[:3] == [
        "Question: What color is 0?", "Reference answer: red", "Answer to be judged: red",
    ]  # fmt: skip


def test_without_a_judge_the_protocol_counts(tmp_path: Path) -> None:
    result, _ = run(tmp_path, FakeModel(), **body(judge={}))
    assert (result.main, result.figures["accuracy"].value) == ("accuracy", 100)
    assert any("not judged: no model to judge was given (--judge)" in note for note in result.notes)


def test_a_judge_behind_an_endpoint_that_sees(tmp_path: Path) -> None:
    """It gives numbers, and is shown the picture; predictions can be judged as well."""
    judge = {"model_name": "strict", "sees": True, "reads": "number", "most": 10, "system": "Be strict.",
             "prompt": "{question} {references} {answer} 0 to 10?"}  # fmt: skip
    with ChatServer(lambda body: f"I give {10 if color(body) == 'red' else 4} of 10: {color(body)} 4"
                    if color(body) != "red" else "10").running() as server:  # fmt: skip
        (tmp_path / "said.jsonl").write_text('{"id": "q0", "answer": "red"}\n')
        judge["model"] = server.url
        result, samples = run(tmp_path, Predictions(tmp_path / "said.jsonl"), **body(judge=judge))
    assert [s.scores["judged"] for s in samples] == [1, 0.4, 0.4, 1]
    assert result.model == "said"
    assert result.judge_usage is not None
    assert (result.judge_usage.requests, result.judge_usage.prompt_tokens) == (4, 40)
    first = next(body for body in server.bodies if "color is 0" in words(body))
    assert (first["model"], first["messages"][0]) == ("strict", {"role": "system", "content": "Be strict."})
    assert words(first) == "What color is 0? red red 0 to 10?"


@pytest.mark.parametrize(
    ("reads", "text", "value"),
    [
        ("yes_no", "Yes.", 1.0), ("yes_no", "That is incorrect", 0.0), ("yes_no", "NO", 0.0), ("yes_no", "know", None),
        ("number", "0.5", 0.5), ("number", "Score: 3/10 = 0.3", 0.3), ("number", "7", None), ("number", "none", None),
    ],
)  # fmt: skip
def test_how_a_verdict_is_read(reads: Any, text: str, value: float | None) -> None:
    assert read_judgement(text, Judge(reads=reads)) == value


def test_examples_and_a_system_turn_come_before_the_question(tmp_path: Path) -> None:
    card = body(
        system="Answer in one word.", in_context={"split": "test", "ids": ["q1", "q0"]}, prompts=["Q: {question}"]
    )
    with ChatServer(color).running() as server:
        result, _ = run(tmp_path, server.url, **card)
    asked = next(one for one in server.bodies if words(one) == "Q: What color is 2?")
    assert [message["role"] for message in asked["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert asked["messages"][0]["content"] == "Answer in one word."
    assert [message["content"] for message in asked["messages"] if message["role"] == "assistant"] == ["blue", "red"]
    assert asked["messages"][1]["content"][1]["text"] == "Q: What color is 1?"
    assert asked["messages"][1]["content"][0]["type"] == "image_url"
    own = next(one for one in server.bodies if words(one) == "Q: What color is 0?")
    assert [message["content"] for message in own["messages"] if message["role"] == "assistant"] == ["blue"], (
        "a question is never shown with its own answer"
    )
    assert result.figures["accuracy"].value == 100


def test_settings_by_card_and_by_model(tmp_path: Path) -> None:
    generation = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "stop": ["\n"], "more": {"reasoning_effort": "low"}}
    other = {"prompts": ["For small: {question}"], "max_tokens": 99, "generation": generation}
    card = body(prompts=["{question}"], for_models={"other*": {"max_tokens": 1}, "SMALL*": other})
    with ChatServer(lambda body: f"{color(body)}\nmore").running() as server:
        result, samples = run(tmp_path, server.url, **card)
    sent = server.bodies[0]
    keys = ("max_tokens", "temperature", "top_p", "seed", "stop", "reasoning_effort")
    assert [sent[key] for key in keys] == [99, 0.7, 0.9, 3, ["\n"], "low"]
    assert samples[0].prompt == "For small: What color is 0?"
    assert samples[0].output == "red"
    assert (result.prompt, result.settings["max_tokens"]) == ("For small: {question}", 99)
    _, said = run(tmp_path / "here", FakeModel(lambda c, _: f"{c}\nmore"), **body(generation={"stop": ["\n"]}))
    assert said[0].output == "red"
    with pytest.raises(BadInput, match="takes the likeliest token each time; temperature of a card's generation"):
        run(tmp_path / "hot", FakeModel(), **body(generation={"temperature": 1}))
    with pytest.raises(BadInput, match=r"for_models\.x.prompts: expected 1, as the card has, got 2"):
        run(tmp_path / "two", FakeModel(), **body(prompts=["a"], for_models={"x": {"prompts": ["a", "b"]}}))


TURNS = [
    {"id": "a", "color": "red", "turns": [{"question": "What color?", "answers": ["red"]},
                                         {"question": "And again?", "answers": ["red again"]}]},
    {"id": "b", "color": "blue", "turns": [{"question": "What color?", "answers": ["green"]}]},
]  # fmt: skip


def test_conversations(tmp_path: Path) -> None:
    """Each turn is asked after the model's own replies; the picture is shown once."""

    def answer(body: dict[str, Any]) -> str:
        said = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        if said:
            assert words(body) == "And again?"
            assert not pictures(body), "it was shown with the first turn"
            return f"{said[0]} again"
        return color(body)

    with ChatServer(answer).running() as server:
        result, samples = run(tmp_path, server.url, TURNS, kind="dialogue")
    assert [(s.id, s.output, s.scores["accuracy"], s.category) for s in samples] == [
        ("a#1", "red", 1, "turn 1"), ("a#2", "red again", 1, "turn 2"), ("b#1", "blue", 0, "turn 1"),
    ]  # fmt: skip
    assert result.figures["accuracy"].value == pytest.approx(200 / 3, abs=1e-4)
    assert result.figures["conversations"].value == 50
    (tmp_path / "said.jsonl").write_text('{"id": "a", "answer": ["red", "blue"]}\n{"id": "b", "answer": "green"}\n')
    read: TaskResult
    read, _ = run(tmp_path / "read", Predictions(tmp_path / "said.jsonl"), TURNS, kind="dialogue")
    assert (read.figures["accuracy"].value, read.figures["conversations"].value) == (
        pytest.approx(200 / 3, abs=1e-4),
        50,
    )


def test_groups_whose_questions_are_all_right(tmp_path: Path) -> None:
    rows = [{**row, "figure": figure} for row, figure in zip(ROWS, "xxyy", strict=True)]
    model = FakeModel(lambda color, question: "no" if "is 3" in question else color)
    result, _ = run(tmp_path, model, rows, **body(all_right={"by_figure": "figure"}))
    assert (result.figures["accuracy"].value, result.figures["by_figure"].value) == (75, 50)
    assert result.figures["by_figure"].n == 2


def test_letters_that_a_data_set_writes_before_its_options_are_not_doubled(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "options": ["A. blue", "B. red"], "answers": ["B"]}]
    result, [sample] = run(tmp_path, FakeModel(lambda *_: "B"), rows, kind="choice")
    assert "A. blue\nB. red" in sample.prompt
    assert result.figures["accuracy"].value == 100

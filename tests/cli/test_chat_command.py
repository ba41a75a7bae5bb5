"""`vlm chat`: one thing said, questions from a pipe, lines of a terminal; several turns, pictures, a full context."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stand_in import FakeModel

Ask = Callable[..., Any]
SHORT = ("--max-tokens", "20")
"""The stand-in reads 200."""


@pytest.fixture
def piped(vlm_command: Any, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`vlm chat` with these lines on standard input."""

    def run(*arguments: Any, lines: str) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return vlm_command("chat", *arguments, *SHORT)

    return run


@pytest.fixture
def typed(vlm_command: Any, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`vlm chat` in a terminal, where these lines are typed; an exception is what the terminal does instead."""

    def run(*arguments: Any, lines: list[Any]) -> Any:
        coming = iter(lines)

        def read(prompt: str) -> str:
            line = next(coming, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("sys.stdin", io.StringIO())
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", read)
        return vlm_command("chat", *arguments, *SHORT)

    return run


def test_one_thing_is_said(vlm_command: Any, model: FakeModel, photos: Path) -> None:
    for arguments in (["Hello there", "--image", photos / "red.png"], [photos / "red.png", "Hello there"]):
        done = vlm_command("chat", *arguments, *SHORT)
        assert (done.code, done.out.split()) == (0, ["turn", "1,", "1", "shown:", "there"])
        assert vlm_command("chat", *arguments, *SHORT, "--json").json == {"reply": "turn 1, 1 shown: there"}


def test_a_question_a_line_and_the_turns_before_it(piped: Ask, photos: Path) -> None:
    done = piped(photos / "red.png", "--system", "Be brief.", lines="What is it?\n\nAnd why?\n")
    assert done.code == 0
    assert [line.strip() for line in done.out.splitlines()] == ["turn 2, 1 shown: it?", "turn 4, 1 shown: why?"]
    told = piped(photos / "red.png", "--json", lines="What is it?\nAnd why?")
    assert told.json == {
        "turns": [
            {"question": "What is it?", "reply": "turn 1, 1 shown: it?"},
            {"question": "And why?", "reply": "turn 3, 1 shown: why?"},
        ]
    }


def test_pictures_come_between_turns(piped: Ask, photos: Path) -> None:
    lines = f"Hello\n/image {photos / 'red.png'}\nis <image> red\n/clear\nHello again\n/exit\nnever\n"
    done = piped("--json", lines=lines)
    assert [turn["reply"] for turn in done.json["turns"]] == [
        "turn 1, 0 shown: Hello", "turn 3, 1 shown: red", "turn 1, 0 shown: again",
    ]  # fmt: skip


def test_what_cannot_be_asked_is_told_and_the_rest_is_asked(piped: Ask, photos: Path) -> None:
    lines = f"Hello\n/image {photos / 'none.png'}\n/picture x\nis <image> red\nBye\n"
    done = piped("--json", lines=lines)
    assert (done.code, [turn["question"] for turn in done.json["turns"]]) == (2, ["Hello", "Bye"])
    assert [row["question"] for row in done.json["skipped"]] == lines.splitlines()[1:4]
    assert len(done.complaints) == 3
    assert "none.png" in done.complaints[0]
    assert "/picture: expected a command of /image" in done.complaints[1]
    assert done.json["turns"][1]["reply"].startswith("turn 3,")  # what failed is no part of the conversation


def test_a_context_that_fills_is_told_and_nothing_is_cut(piped: Ask) -> None:
    long = " ".join(["word"] * 70)
    done = piped("--json", lines=f"{long}\n{long}\n{long}\n/clear\nHello\n")
    assert (done.code, [turn["question"] for turn in done.json["turns"]]) == (2, [long, long, "Hello"])
    nearly, full = (line for line in done.err.splitlines() if "conversation" in line)
    assert nearly.startswith("vlm: the conversation is nearly full: ")
    assert nearly.endswith(" of 200")
    assert "is full, nothing was asked" in full
    assert full.endswith("; /clear begins anew")


def test_typed_lines(typed: Ask, photos: Path) -> None:
    done = typed(photos / "red.png", lines=["What is it?", "", "/image nothing.png", "Sure?", "/help", "/exit", "no"])
    assert done.code == 0
    assert [line.strip() for line in done.out.splitlines()] == ["turn 1, 1 shown: it?", "turn 3, 1 shown: Sure?"]
    assert "nothing.png" in done.err
    assert "/image PATH" in done.err


def test_ctrl_c_stops_the_reply_alone(typed: Ask, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FakeModel.chat

    def interrupted(self: FakeModel, messages: Any, **options: Any) -> Any:
        words = whole(self, messages, **options)
        yield next(words)
        if len(messages) == 1:
            raise KeyboardInterrupt
        yield from words

    monkeypatch.setattr(FakeModel, "chat", interrupted)
    done = typed(lines=["Hello", KeyboardInterrupt(), "And now?"])
    assert (done.code, [line.strip() for line in done.out.splitlines()]) == (
        0, ["turn", "", "turn 3, 0 shown: now?", ""]
    )  # fmt: skip
    assert "vlm: stopped" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png", "What?"], "photo.png: expected a picture or clip, got no file of this name"),
        (["What is it?", "And why?"], "expected one text (in quotes)"),
        (["is <image> red"], "expected at most 0 <image>"),
        ([], "nothing to say"),
    ],
)
def test_what_does_not_fit_is_a_line(piped: Ask, arguments: list[str], message: str) -> None:
    done = piped(*arguments, lines="")
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert message in done.err


def test_json_is_not_for_typed_lines(typed: Ask) -> None:
    done = typed("--json", lines=["Hello"])
    assert (done.code, done.out) == (2, "")
    assert "--json: expected TEXT, or questions from a pipe" in done.err

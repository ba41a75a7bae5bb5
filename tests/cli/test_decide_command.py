"""`vlm decide`: what is asked, how it is printed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ASKED = ["--yes-no", "Is it red?", "--choice", "Which colour?|red|blue", "--score", "How red?|little|some|all"]


def test_json_has_every_answer_with_its_probabilities(model: Any, vlm_command: Any, photos: Path) -> None:
    done = vlm_command("decide", photos / "red.png", "--text", "a red wall", *ASKED, "--json")
    assert done.code == 0, done.err
    rows = done.json["results"]
    assert [row["input"] for row in rows] == [str(photos / "red.png"), "a red wall"]
    yes, colour, much = rows[0]["answers"]
    assert (yes["kind"], yes["answer"], yes["temperature"], yes["temperature_from"]) == ("yes_no", "yes", None, None)
    assert yes["probabilities"][0] == {"label": "yes", "probability": 0.666667}
    assert [one["label"] for one in colour["probabilities"]] == ["red", "blue"]
    assert (much["score"], much["mass"]) == (0.75, 0.735759)


def test_a_table_for_a_person(model: Any, vlm_command: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = vlm_command("decide", photos / "red.png", *ASKED)
    assert done.code == 0, done.err
    assert "red 0.667, blue 0.333" in done.out
    assert "none" in done.out


def test_questions_of_a_file(model: Any, vlm_command: Any, photos: Path, write: Any) -> None:
    asked = write("q.json", {
        "spam": {"type": "noul", "instructions": "Is it spam?", "criteria": {"true": "an ad", "false": None}},
        "tone": {"type": "choice", "instructions": "Tone?", "criteria": {"calm": "polite", "angry": None}},
        "urgency": {"type": "score", "instructions": "Urgent?", "criteria": ["Can wait", "Today"]},
    })  # fmt: skip
    done = vlm_command("decide", photos / "red.png", "--questions", asked, "--json")
    assert [one["name"] for one in done.json["results"][0]["answers"]] == ["spam", "tone", "urgency"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red.png"], "nothing to decide: give --yes-no"),
        (["--yes-no", "Is it?"], "nothing to decide about"),
        (["red.png", "--choice", "Which?|a"], "2 to 255 labels, got 1"),
        (["red.png", "--choice", "Which?|a|A."], "told apart"),
        (["red.png", "--yes-no", "Is it?", "--temperatures", "none.json"], "none.json: no such file"),
        (["red.png", "--questions", "none.json"], "none.json: no such file"),
        (["--text", " ", "--yes-no", "Is it?"], "text 1 is empty"),
    ],
)
def test_what_cannot_be_decided_is_one_line(
    model: Any, vlm_command: Any, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(photos)
    done = vlm_command("decide", *arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.complaints) == 1
    assert message in done.err


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"type": "rank"}, "question 'q': expected an object of type noul, choice or score, got 'rank'"),
        ({"type": "choice", "instructions": "Tone?"}, "question 'q': criteria: expected an object of options"),
        ({"type": "score", "instructions": "Tone?", "criteria": {}}, "question 'q': criteria: expected a list"),
        (
            {"type": "noul", "instructions": "Is it?", "criteria": {"maybe": "x"}},
            "expected true and false, got 'maybe'",
        ),
        ({"type": "noul"}, "question 'q': question is empty"),
        ({"type": "noul", "instructions": "Is it?", "labels": []}, "got 'labels'"),
    ],
)
def test_a_wrong_question_of_a_file_is_named(
    model: Any, vlm_command: Any, photos: Path, write: Any, question: Any, message: str
) -> None:
    done = vlm_command("decide", photos / "red.png", "--questions", write("q.json", {"q": question}))
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_an_input_that_cannot_be_read_is_told_and_the_others_are_done(
    model: Any, vlm_command: Any, photos: Path
) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    done = vlm_command("decide", photos, "--yes-no", "Is it red?", "--json")
    assert done.code == 2
    assert len(done.json["results"]) == 3
    assert len(done.json["skipped"]) == 1

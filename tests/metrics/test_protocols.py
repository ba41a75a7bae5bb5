"""Protocols: each by its name does what its benchmark's own code does; and multiple choice in rounds."""

from __future__ import annotations

from collections import Counter

import pytest

from vlm.errors import BadInput
from vlm.metrics.choice import guess
from vlm.metrics.protocols import PROTOCOLS, TEN_ANSWERS
from vlm.metrics.vqa import anls

OPTIONS = {"A": "red", "B": "blue", "C": "green"}


def test_what_counts_ten_answers_is_a_protocol() -> None:
    assert set(PROTOCOLS) >= TEN_ANSWERS


@pytest.mark.parametrize("name", PROTOCOLS)
def test_all_are_from_0_to_1_and_want_answers(name: str) -> None:
    rule = PROTOCOLS[name]
    for prediction in ("", "yes", "No.", "5", "\ud800"):
        assert 0 <= rule(prediction, ["yes"] * 9 + ["5"]) <= 1
    for none in ([], "yes"):
        with pytest.raises(BadInput, match="expected"):
            rule("yes", none)


@pytest.mark.parametrize(
    ("name", "prediction", "answers", "score"),
    [
        ("vqav2", "Two.", ["two"] * 10, 0),  # unanimous answers are compared as they are
        ("okvqa", "Two.", ["two"] * 9 + ["2"], 1),
        ("textvqa", "Two.", ["two"] * 10, 1),  # always normalised
        ("vizwiz", "Two.", ["2"] * 10, 1),  # the prediction always is
        ("vizwiz", "two", ["two"] * 10, 0),  # the answers never are
        ("vizwiz", "the cat", ["cat"] * 2 + ["dog"] * 8, 0.6),
        ("gqa", "yes", ["yes"], 1),
        ("gqa", "Yes", ["yes"], 0),
        ("gqa", "yes ", ["yes"], 0),
        ("exact", " Yes ", ["no", "yes"], 1),
        ("anls", "ab", ["xyz", "ax"], 0.5),
        ("relaxed", "104", ["90", "100"], 1),
        ("relaxed", "106", ["90", "100"], 0),
        ("pope", "There is no dog.", ["no"], 1),
        ("pope", "NO", ["no"], 0),
    ],
)
def test_what_sets_them_apart(name: str, prediction: str, answers: list[str], score: float) -> None:
    assert PROTOCOLS[name](prediction, answers) == pytest.approx(score)


def test_anls_has_two_readings_of_white_space() -> None:
    assert anls("b ", ["", "a"]) == 0.5
    assert anls("b ", ["", "a"], implementation="mmf") == 0
    assert anls("a b", "a  b", implementation="mmf") == 0.75
    assert anls(" ", "", implementation="mmf") == 1
    with pytest.raises(BadInput, match="did you mean 'mmf'"):
        anls("a", "a", implementation="mmff")  # type: ignore[arg-type]


def test_a_guess_depends_on_the_question_alone() -> None:
    guesses = [guess(OPTIONS, f"question {i}") for i in range(3000)]
    assert guesses == [guess(OPTIONS, f"question {i}") for i in range(3000)]
    assert guesses[:4] == ["C", "C", "A", "A"]
    assert all(900 < count < 1100 for count in Counter(guesses).values())
    with pytest.raises(BadInput, match="no options"):
        guess({}, "1")

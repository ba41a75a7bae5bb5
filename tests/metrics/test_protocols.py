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


@pytest.mark.parametrize(
    ("name", "prediction", "answer", "right"),
    [
        ("contains", "The word is\ncentre.", "CENTRE", 1), ("contains", "center", "CENTRE", 0),
        ("contains", "on 8\nMay 1990", "8 May", 1),
        ("contains_tight", "\\frac{1}{2}", "\\frac { 1 } { 2 }", 1),
        ("contains_tight", "\\FRAC{1}{2}", "\\frac{1}{2}", 0),
        ("parts", "x is -1 or -5", "-1 <AND> -5", 1), ("parts", "x is -1", "-1 <AND> -5", 0),
        ("parts", "that is 5/4", "1.25 <OR> 5/4", 1), ("parts", "a and B", "A<AND>b<OR>c", 1),
        ("yes_no", "Yes, it is.", "1", 1), ("yes_no", "No.", "1", 0), ("yes_no", "no", "0", 1),
        ("yes_no", "Yes", "yes", 1),
        ("yes_no", "I know", "0", 0), ("yes_no", "", "yes", 0),
        ("option", "B", "B. left", 1), ("option", "B. left", "B. left", 1), ("option", "(B) left", "B. left", 1),
        ("option", "A. left", "B. left", 0), ("option", "B) right", "B. left", 1), ("option", "Because", "B. left", 0),
        ("option", "left", "left", 1),
        ("number", "The answer is 1.24", "1.2", 1), ("number", "about 1.3", "1.2", 0), ("number", "8", "8", 1),
        ("number", "7.6, so 8", "8", 1), ("number", "1,200 m", "1200", 1), ("number", "none", "3", 0),
        ("number", "It is [0,8].", "[0, 8]", 1), ("number", "-4", "4", 0),
    ],
)  # fmt: skip
def test_protocols_of_recent_benchmarks(name: str, prediction: str, answer: str, right: float) -> None:
    assert PROTOCOLS[name](prediction, [answer]) == right

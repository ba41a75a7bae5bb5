"""VQA metrics against the official evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm.errors import BadInput
from vlm.metrics.vqa import anls, evalai_normalise, exact_match, textvqa_accuracy, vqa_accuracy, vqa_normalise


@pytest.fixture(scope="module")
def cases(golden: Path) -> Any:
    return json.loads((golden / "metrics/vqa.json").read_text())


def test_accuracy_equals_the_official_one(cases: Any) -> None:
    for prediction, answers, percent in cases["accuracy"]:
        assert 100 * vqa_accuracy(prediction, answers) == pytest.approx(percent, abs=0.005), prediction


def test_normalisers_equal_the_official_ones(cases: Any) -> None:
    assert [[text, vqa_normalise(text)] for text, _ in cases["normalised"]] == cases["normalised"]
    assert [[text, evalai_normalise(text)] for text, _ in cases["evalai"]] == cases["evalai"]


def test_anls_equals_lmms_eval(cases: Any) -> None:
    for prediction, answers, score in cases["anls"]:
        assert anls(prediction, answers) == pytest.approx(score, abs=1e-9), prediction


def test_unanimous_answers_are_not_normalised() -> None:
    assert vqa_accuracy("Two.", ["two"] * 10) == 0
    assert vqa_accuracy("Two.", ["two"] * 9 + ["2"]) == 1
    assert textvqa_accuracy("Two.", ["two"] * 10) == 1


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_is_the_mean_over_leaving_one_out(matches: int, accuracy: float) -> None:
    answers = ["red"] * matches + ["blue"] * (10 - matches)
    assert vqa_accuracy("red", answers) == pytest.approx(accuracy)
    assert textvqa_accuracy("Red", answers) == pytest.approx(accuracy)


def test_anls_keeps_exactly_its_threshold() -> None:
    assert anls("ab", "ax") == 0.5
    assert anls("ab", ["xyz", "axy"]) == 0
    assert anls("AB  c", ["ab c"]) == 1
    assert anls("straße x", ["straße"]) == pytest.approx(1 - 2 / 9)  # the lengths are those of capitals


def test_exact_match() -> None:
    assert exact_match(" Yes ", "yes") == 1
    assert exact_match("yes.", ["no", "yes"]) == 0
    assert exact_match("yes.", ["no", "yes"], normalise=vqa_normalise) == 1


def test_says_what_is_wrong() -> None:
    with pytest.raises(BadInput, match="expected a list"):
        vqa_accuracy("a", "a")
    with pytest.raises(BadInput, match="expected at least one"):
        anls("a", [])


def test_equals_the_official_evaluation(shared: Path) -> None:
    folder = shared / "golden/metrics"
    for q in json.loads((folder / "vqa_cases.json").read_text())["questions"]:
        got = 100 * vqa_accuracy(q["prediction"], [a["answer"] for a in q["answers"]])
        assert got == pytest.approx(q["accuracy_pct"], abs=0.005), q
    for case in json.loads((folder / "vqa_norm_cases.json").read_text()):
        assert vqa_normalise(case["in"]) == case["normalised"]
    misc = json.loads((folder / "misc_cases.json").read_text())
    assert [[text, evalai_normalise(text)] for text, _ in misc["evalai_normaliser"]] == misc["evalai_normaliser"]
    for case in misc["anls"]:
        assert anls(case["prediction"], case["answers"]) == pytest.approx(case["lmms_eval"], abs=1e-9), case

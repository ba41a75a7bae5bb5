"""Charts, POPE, multiple choice and standard errors against the references named in each module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlm.errors import BadInput
from vlm.metrics.chart import relaxed_accuracy
from vlm.metrics.choice import mmmu_choice, vlmevalkit_choice
from vlm.metrics.pope import pope, pope_answer
from vlm.metrics.statistics import clustered_standard_error, standard_error


@pytest.fixture(scope="module")
def cases(golden: Path) -> Any:
    return json.loads((golden / "metrics/benchmarks.json").read_text())


def test_relaxed_accuracy(cases: Any) -> None:
    for target, prediction, correct in cases["relaxed"]:
        assert relaxed_accuracy(prediction, target) is correct, (target, prediction)


def test_multiple_choice(cases: Any) -> None:
    for response, mmmu, vlmevalkit in cases["choice"]:
        assert (mmmu_choice(response, cases["options"]) or "RANDOM") == mmmu, response
        assert (vlmevalkit_choice(response, cases["options"]) or False) == vlmevalkit, response


def test_a_long_response_may_quote_an_option(cases: Any) -> None:
    response = "first I saw a blue car, but what it shows is the green tree"
    assert mmmu_choice(response, cases["options"]) == "C"
    assert vlmevalkit_choice(response, cases["options"]) is None
    assert vlmevalkit_choice("Cannot determine the answer: B", cases["options"]) == "Z"


def test_pope(cases: Any) -> None:
    case = cases["pope"]
    assert [pope_answer(response) for response in case["predictions"]] == case["parsed"]
    score = pope(case["predictions"], case["labels"])
    assert score.accuracy == pytest.approx(case["acc"])
    assert (score.precision, score.recall, score.f1) == pytest.approx((case["precision"], case["recall"], case["f1"]))
    assert score.yes_ratio == pytest.approx(case["yes_ratio"])
    assert pope(["no"], ["no"]).f1 == 0
    with pytest.raises(BadInput, match="'maybe'"):
        pope(["no"], ["maybe"])


def test_standard_errors(cases: Any) -> None:
    case = cases["stderr"]
    assert standard_error(case["scores"]) == pytest.approx(case["mean_stderr"], abs=1e-12)
    clustered = clustered_standard_error(case["scores"], case["clusters"])
    assert clustered == pytest.approx(case["clustered_stderr"], abs=1e-12)
    alone = clustered_standard_error(case["scores"], list(range(len(case["scores"]))))
    assert alone == pytest.approx(case["mean_stderr"])
    assert clustered_standard_error([0, 1, 0, 1], "aabb") == pytest.approx((1 / 12 - 1 / 16) ** 0.5)
    with pytest.raises(BadInput, match="one each"):
        clustered_standard_error([0, 1], "a")

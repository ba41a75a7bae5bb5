"""Charts, POPE, multiple choice and standard errors against the references named in each module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.chart import relaxed_accuracy
from vlm.metrics.choice import mmmu_choice, vlmevalkit_choice
from vlm.metrics.pope import pope, pope_answer
from vlm.metrics.statistics import interval_of_mean


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


def lmms_eval_error(scores: list[float], clusters: list[str]) -> float:
    """lmms-eval's clustered error from ours: without C / (C - 1), and N / (N - 1) on the samples' own products."""
    n, count, spread = len(scores), len(set(clusters)), np.var(scores)
    error = interval_of_mean(scores, clusters).error or 0.0
    return float(np.sqrt(error**2 * (count - 1) / count + spread / (n - 1) - spread / n))


def test_standard_errors(cases: Any) -> None:
    case = cases["stderr"]
    assert interval_of_mean(case["scores"]).error == pytest.approx(case["mean_stderr"], abs=1e-12)
    assert lmms_eval_error(case["scores"], case["clusters"]) == pytest.approx(case["clustered_stderr"], abs=1e-12)
    alone = interval_of_mean(case["scores"], list(range(len(case["scores"])))).error
    assert alone == pytest.approx(case["mean_stderr"])
    with pytest.raises(BadInput, match="one each"):
        interval_of_mean([0, 1], "a")

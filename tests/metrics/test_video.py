"""Video metrics against densevid_eval, moment_detr and SODA."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.video import moment_retrieval, soda_alignment, temporal_iou


def test_temporal_iou(golden: Path) -> None:
    for a, b, iou in json.loads((golden / "metrics/video.json").read_text())["densevid_iou"]:
        assert temporal_iou(a, b) == pytest.approx(iou, abs=1e-12)


def test_soda_finds_the_best_alignment(golden: Path) -> None:
    for case in json.loads((golden / "metrics/video.json").read_text())["soda_dp"]:
        found = soda_alignment(case["scores_gold_by_pred"])
        assert found.score == pytest.approx(case["max_score"])
        assert (found.precision, found.recall) == pytest.approx((case["precision"], case["recall"]))


def test_soda_equals_brute_force_and_its_pairs_add_up() -> None:
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (1, 4), (4, 1), (3, 4), (4, 3), (4, 4)]:
        scores = rng.random(shape) * (rng.random(shape) < 0.7)
        best = max(
            sum(scores[g, p] for g, p in zip(gs, ps, strict=True))
            for n in range(min(shape) + 1)
            for gs in itertools.combinations(range(shape[0]), n)
            for ps in itertools.combinations(range(shape[1]), n)
        )
        found = soda_alignment(scores)
        assert found.score == pytest.approx(best)
        assert sum(scores[pair] for pair in found.pairs) == pytest.approx(best)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(found.pairs))


def test_moment_retrieval_by_hand() -> None:
    relevant = [[(0, 10), (20, 30)], [(5, 15)]]
    predicted = [[(0, 10, 0.5), (0, 9, 0.9), (20, 29, 0.7)], []]
    result = moment_retrieval(predicted, relevant, thresholds=(0.5, 0.95))
    # in order of score: (0, 9) hits, (20, 29) hits, (0, 10) finds its window taken; at 0.95 only (0, 10) hits
    assert result.average_precision == pytest.approx({0.5: (1 + 0) / 2, 0.95: (1 / 3 / 2 + 0) / 2})
    assert result.recall_at_1 == {0.5: 0.5, 0.95: 0.5}
    assert result.mean_iou == (1 + 0) / 2
    assert moment_retrieval([[(5, 15, 0.5)]], relevant[:1]).mean_iou == pytest.approx(1 / 3)
    assert moment_retrieval(predicted, relevant, thresholds=(0.95,), most=1).mean_average_precision == 0.25


def test_says_what_is_wrong() -> None:
    with pytest.raises(BadInput, match="one each"):
        moment_retrieval([[]], [])
    with pytest.raises(BadInput, match="query 0 has no relevant window"):
        moment_retrieval([[]], [[]])
    with pytest.raises(BadInput, match="shape"):
        soda_alignment([1.0])


def test_equals_qvhighlights(shared: Path) -> None:
    cases = json.loads((shared / "golden/metrics/video_cases.json").read_text())
    for case in cases["soda_dp"]:
        assert soda_alignment(case["scores_gold_by_pred"]).score == pytest.approx(case["max_score"])
    expected = cases["qvhighlights"]
    relevant = {truth["qid"]: truth["relevant_windows"] for truth in expected["ground_truth"]}
    predicted = expected["submission"]
    result = moment_retrieval([p["pred_relevant_windows"] for p in predicted], [relevant[p["qid"]] for p in predicted])
    ap = {str(t): v for t, v in result.average_precision.items()} | {"average": result.mean_average_precision}
    assert {t: round(100 * v, 2) for t, v in ap.items()} == expected["mAP"]
    assert {str(t): round(100 * v, 2) for t, v in result.recall_at_1.items()} == expected["R1"]

"""Classification metrics by hand and, where it is installed, against scikit-learn."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.classification import (
    Ties,
    brier_scores,
    calibration,
    mean_class_recall,
    multilabel_average_precision,
    top_k_accuracy,
)

SCORES = [[3, 2, 1], [1, 1, 0], [5, 5, 5], [0, 1, 2]]
LABELS = [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("ties", "first", "second"),
    [
        ("optimistic", [1, 1, 1, 0], [1, 1, 1, 0]),
        ("pessimistic", [1, 0, 0, 0], [1, 1, 0, 0]),
        ("mean", [1, 1 / 2, 1 / 3, 0], [1, 1, 2 / 3, 0]),
    ],
)
def test_ties_are_decided_by_name(ties: Any, first: list[float], second: list[float]) -> None:
    found = top_k_accuracy(SCORES, LABELS, (1, 2, 5), ties=ties)
    assert found[1].per_item == pytest.approx(first)
    assert found[2].per_item == pytest.approx(second)
    assert found[1].value == pytest.approx(sum(first) / 4)
    assert found[5].value == 1


def test_the_mean_is_the_expectation_over_all_orders() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        row, label = rng.integers(0, 3, 5), int(rng.integers(5))
        orders = [o for o in itertools.permutations(range(5)) if not (np.diff(row[list(o)]) > 0).any()]
        for k, score in top_k_accuracy([row], [label], (1, 2, 4)).items():
            assert score.value == pytest.approx(np.mean([label in o[:k] for o in orders]))


def test_class_recall_does_not_know_the_size_of_a_class() -> None:
    found = mean_class_recall([1, 1, 1, 0, 0.5], [4, 4, 4, 7, 7])
    assert (found.value, found.per_class) == (pytest.approx(0.625), {4: 1, 7: 0.25})


def test_a_class_without_items_has_no_average_precision() -> None:
    found = multilabel_average_precision([[3, 1], [2, 1], [1, 1]], [[1, 0], [0, 0], [1, 0]])
    assert found.per_class == [pytest.approx((1 + 2 / 3) / 2), None]
    assert found.value == found.per_class[0]


def test_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(1)
    for levels in (4, 1000):
        scores, targets = rng.integers(0, levels, (60, 7)) / levels, rng.random((60, 7)) < 0.3
        wanted = sklearn.average_precision_score(targets, scores, average=None)
        assert multilabel_average_precision(scores, targets).per_class == pytest.approx(wanted.tolist(), abs=1e-12)
        labels = rng.integers(0, 7, 60)
        right = scores.argmax(axis=1) == labels
        balanced = sklearn.balanced_accuracy_score(labels, scores.argmax(axis=1))
        assert mean_class_recall(right, labels).value == pytest.approx(balanced)
    scores = rng.random((60, 7))  # without ties
    for k, score in top_k_accuracy(scores, labels, (1, 3, 5)).items():
        assert score.value == pytest.approx(sklearn.top_k_accuracy_score(labels, scores, k=k, labels=range(7)))


def test_calibration() -> None:
    found = calibration([0, 0.1, 0.55, 0.6, 1], [0, 1, 1, 0, 1], bins=10)
    assert [(b.count, b.confidence, b.accuracy) for b in found.bins if b.count] == [
        (2, pytest.approx(0.05), 0.5),
        (2, pytest.approx(0.575), 0.5),
        (1, 1, 1),
    ]
    assert found.error == pytest.approx(2 / 5 * 0.45 + 2 / 5 * 0.075)
    assert found.bins[5].low == pytest.approx(0.5)
    assert found.bins[1].accuracy is None
    rng = np.random.default_rng(0)
    sure = rng.random(20_000)
    assert calibration(sure, rng.random(20_000) < sure, bins=15).error < 0.02


@pytest.mark.parametrize("ties", get_args(Ties))
def test_shares_of_items_are_fractions(ties: Any) -> None:
    assert all(0 <= v <= 1 for s in top_k_accuracy(SCORES, LABELS, ties=ties).values() for v in s.per_item)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: top_k_accuracy([1.0], [0]), "shape"),
        (lambda: top_k_accuracy([[1.0, np.nan]], [0]), "1 scores are not finite"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [2]), "for 2 classes"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [0, 1]), "one each"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [0.0]), "integers"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [0], (0,)), "positive"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [0], ties="men"), "did you mean 'mean'"),  # type: ignore[arg-type]
        (lambda: mean_class_recall([2, 0], [0, 1]), "1 items are not from 0 to 1"),
        (lambda: mean_class_recall([], []), "one or more"),
        (lambda: multilabel_average_precision([[1.0]], [[2]]), "0 and 1 only"),
        (lambda: multilabel_average_precision([[1.0]], [[0]]), "none of 1 classes"),
        (lambda: multilabel_average_precision([[1.0]], [[1, 0]]), "expected the same"),
        (lambda: calibration([0.5, np.nan], [1, 1]), "1 confidences are not from 0 to 1"),
        (lambda: calibration([0.5], [1], bins=0), "one or more"),
    ],
)
def test_says_what_is_wrong(call: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        call()


def test_brier_scores_by_hand() -> None:
    found = brier_scores([[0.7, 0.3], [0.2, 0.5, 0.3], [1, 0]], [0, 2, 1])
    assert found == pytest.approx([2 * 0.3**2, 0.2**2 + 0.5**2 + 0.7**2, 2])
    sklearn = pytest.importorskip("sklearn.metrics")
    yes = np.random.default_rng(0).uniform(size=50)
    so = (yes > 0.4).astype(int)
    ours = brier_scores(np.stack([1 - yes, yes], axis=1), so.tolist())
    assert np.mean(ours) / 2 == pytest.approx(sklearn.brier_score_loss(so, yes))


@pytest.mark.parametrize(
    ("chances", "right", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "1 items for 2 labels"),
        ([[0.5, 0.4]], [0], "probabilities of item 0 sum to 0.9; expected 1"),
        ([[1.5, -0.5]], [0], "2 probabilities of item 0 are not from 0 to 1"),
        ([[0.5, 0.5]], [2], "label of item 0 is 2; expected 0 to 1"),
    ],
)
def test_what_has_no_brier_score_is_refused(chances: Any, right: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        brier_scores(chances, right)

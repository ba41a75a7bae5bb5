"""Dense captioning by hand, with a metric that can be counted on fingers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vlm.errors import BadInput
from vlm.metrics.caption import Score, bleu, cider, rouge_l
from vlm.metrics.dense_captioning import NOTHING, dense_captioning, soda_c


def same(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> Score:
    """The share of captions that are their reference."""
    items = [float(h in r) for r, h in zip(references, hypotheses, strict=True)]
    return Score(sum(items) / len(items), items)


ANNOTATED = [[[(0.0, 10.0, "a dog"), (20.0, 30.0, "a cat")], [(0.0, 9.0, "a pup")]], [[(0.0, 5.0, "a car")]]]


def test_every_overlap_is_a_pair_and_what_overlaps_nothing_counts() -> None:
    predicted = [[(0.0, 10.0, "a dog"), (40.0, 50.0, "a cat")], []]
    found = dense_captioning(predicted, ANNOTATED, same, thresholds=(0.5, 0.95))
    # at 0.5 "a dog" meets "a dog" and "a pup", "a cat" nothing: 1 of 3 pairs; the other video has no prediction
    assert found.score == {0.5: pytest.approx(1 / 3 / 2), 0.95: pytest.approx(1 / 2 / 2)}
    assert found.mean_score == pytest.approx((1 / 6 + 1 / 4) / 2)
    assert found.precision == {0.5: 1 / 4, 0.95: 1 / 4}
    assert found.recall == {0.5: 1 / 2, 0.95: 1 / 4}  # the second annotator's one moment is found at 0.5


def test_finding_wants_more_than_the_threshold_and_pairing_reaches_it() -> None:
    seen: list[Any] = []

    def spy(references: Any, hypotheses: Any) -> Score:
        seen.append((references, hypotheses))
        return Score(1.0, [])

    found = dense_captioning([[(0.0, 1.0, "x")]], [[[(0.0, 1.0, "y")]]], spy, thresholds=(1 / (1 + 1e-8),))
    assert seen == [([["y"]], ["x"])]
    assert list(found.recall.values()) == [0]


def test_only_so_many_moments_count_and_only_ascii_as_in_the_reference() -> None:
    predicted = [[(0.0, 10.0, "caf\u00e9"), (0.0, 10.0, "b")]]
    seen: list[Any] = []

    def spy(references: Any, hypotheses: Any) -> Score:
        seen.append((references, hypotheses))
        return Score(0.0, [])

    truth = [[[(0.0, 10.0, "\u00e9t\u00e9")]]]
    dense_captioning(predicted, truth, spy, thresholds=(0.5,), most=1)
    dense_captioning(predicted, truth, spy, thresholds=(0.5,), most=1, ascii_only=False)
    assert seen == [([[" t "]], ["caf "]), ([["\u00e9t\u00e9"]], ["caf\u00e9"])]


@pytest.mark.parametrize("metric", [rouge_l, cider, lambda r, h: bleu(r, h)[3]])
def test_takes_the_caption_metrics(metric: Any) -> None:
    right = [[(0.0, 10.0, "a dog runs on the grass"), (20.0, 30.0, "two kids play soccer outside")]]
    good = dense_captioning(right, [right], metric).mean_score
    assert good > 0.99
    assert dense_captioning([[(50.0, 60.0, "a dog runs")]], [right], metric).mean_score < 1e-3 * good


def test_soda_aligns_in_order_and_sums_over_videos() -> None:
    """All annotators' moments are one list; a pair counts IoU times the caption's score, in order of time."""
    predicted = [[(20.0, 30.0, "a cat"), (0.0, 5.0, "a dog")], [(0.0, 5.0, "a bus")]]
    # The dog's IoU is 1/2 with the first, the cat's 1; the second annotator's dog stands between, and one is enough.
    assert soda_c(predicted, ANNOTATED, same) == pytest.approx(2 * (0.5 + 1.0) / (2 + 3 + 1 + 1), abs=1e-6)
    swapped = [[(0.0, 10.0, "a cat"), (20.0, 30.0, "a dog")]]
    assert soda_c(swapped, ANNOTATED[:1], same) == 0
    calls: list[int] = []

    def spy(references: Any, hypotheses: Any) -> Score:
        calls.append(len(hypotheses))
        return Score(0.0, [0.0] * len(hypotheses))

    assert soda_c(predicted, ANNOTATED, spy) == 0
    assert calls == [2 * 3 + 1], "all pairs at once, so that a program is started once"
    assert soda_c([[]], ANNOTATED[:1], same) == 0


def test_no_caption_has_the_word_for_nothing() -> None:
    assert rouge_l([[NOTHING]], ["a dog runs on the grass"]).value == 0


@pytest.mark.parametrize(
    ("predicted", "annotated", "options", "says"),
    [
        ([], [], {}, "at least one"),
        ([[]], [[], []], {}, "one each"),
        ([[]], [[]], {}, "video 0 has an annotator without moments"),
        ([[]], [[[]]], {}, "video 0 has an annotator without moments"),
        ([[]], [[[(0, 1, "x")]]], {"thresholds": ()}, "no thresholds"),
    ],
)
def test_says_what_is_wrong(predicted: Any, annotated: Any, options: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        dense_captioning(predicted, annotated, same, **options)

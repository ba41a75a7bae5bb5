"""Retrieval metrics against brute force, scikit-learn and trec_eval."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.retrieval import (
    RetrievalReport,
    Ties,
    mean_average_precision,
    ndcg,
    recall_at_k,
    recall_from_vectors,
)

# four texts, three images; text 0 ties its image with two others, text 3 with one
SIMILARITY = np.array([[5, 5, 5], [1, 9, 2], [7, 3, 4], [0, 8, 8]], dtype=np.float32)
IMAGE = np.array([0, 1, 2, 2])


@pytest.mark.parametrize(
    ("ties", "ranks", "back"),
    [
        ("optimistic", [1, 1, 2, 1], [2, 1, 1]),
        ("pessimistic", [3, 1, 2, 2], [2, 1, 1]),
        ("mean", [2, 1, 2, 1.5], [2, 1, 1]),
    ],
)
def test_ties_are_decided_by_name(ties: Any, ranks: list[float], back: list[float]) -> None:
    report = recall_at_k(SIMILARITY, IMAGE, (1, 2), ties=ties)
    assert report.text_to_image.ranks.tolist() == ranks
    assert report.image_to_text.ranks.tolist() == back
    assert report.image_to_text.recall == {1: 2 / 3, 2: 1}
    assert report.image_to_text.median_rank == 1
    assert report.image_to_text.mean_rank == pytest.approx(4 / 3)
    assert report.image_to_text.mean_reciprocal_rank == pytest.approx(5 / 6)


@pytest.mark.parametrize("ties", get_args(Ties))
def test_the_order_of_the_data_changes_nothing(ties: Any) -> None:
    rng = np.random.default_rng(0)
    similarity, image = rng.integers(0, 5, (60, 12)).astype(np.float32), np.repeat(np.arange(12), 5)
    texts, images = rng.permutation(60), rng.permutation(12)
    shuffled, moved = similarity[texts][:, images], np.argsort(images)[image[texts]]
    for measure in (recall_at_k, mean_average_precision, ndcg):
        a, b = measure(similarity, image, ties=ties), measure(shuffled, moved, ties=ties)
        if measure is recall_at_k:
            assert a.text_to_image.recall == b.text_to_image.recall
            assert a.image_to_text.recall == b.image_to_text.recall
        else:
            assert a.text_to_image == pytest.approx(b.text_to_image)
            assert a.image_to_text == pytest.approx(b.image_to_text)


def test_the_mean_is_the_expectation_over_all_orders() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        row = rng.integers(0, 3, 6)
        right = np.array([1, 1, 1, 0, 0, 0]) == 1
        precisions, gains = [], []
        for order in itertools.permutations(range(6)):
            if (np.diff(row[list(order)]) > 0).any():
                continue
            hits = right[list(order)]
            precisions.append((hits.cumsum() / np.arange(1, 7))[hits].mean())
            gains.append((hits / np.log2(np.arange(2, 8)))[:4].sum() / (1 / np.log2([2, 3, 4])).sum())
        one = {t: _one_query(row, right, t) for t in get_args(Ties)}
        assert one["mean"] == pytest.approx((np.mean(precisions), np.mean(gains)))
        assert one["optimistic"] == pytest.approx((max(precisions), max(gains)))


def _one_query(column: Any, right: Any, ties: Any) -> tuple[float, float]:
    """AP and nDCG@4 of one image against texts, by giving the wrong texts to a second image that ranks them first."""
    similarity = np.stack([column, np.where(right, -1.0, 1.0)], axis=1)
    image = np.where(right, 0, 1)
    ap = mean_average_precision(similarity, image, ties=ties).image_to_text
    gain = ndcg(similarity, image, 4, ties=ties).image_to_text
    return 2 * ap - 1, 2 * gain - 1  # the second image's are 1


def test_an_image_without_texts_is_a_distractor() -> None:
    report = recall_at_k([[1.0, 2.0], [3.0, 0.0]], [0, 0], (1,))
    assert report.text_to_image.recall == {1: 0.5}
    assert len(report.image_to_text.ranks) == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
def test_takes_any_number_type(dtype: Any) -> None:
    assert recall_at_k(SIMILARITY.astype(dtype), IMAGE).text_to_image.recall[1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("similarity", "image", "options", "says"),
    [
        ([1.0, 2.0], [0, 1], {}, "shape"),
        ([[1.0, 2.0]], [0, 1], {}, "one each"),
        ([[1.0, 2.0]], [2], {}, "for 2 images"),
        ([[1.0, 2.0]], [-1], {}, "for 2 images"),
        ([[1.0, 2.0]], [0.0], {}, "integers"),
        ([[1.0, float("nan")]], [0], {}, "1 similarities are not finite"),
        ([["1"]], [0], {}, "similarities are <U1; expected real numbers"),
        ([[1j]], [0], {}, "expected real numbers"),
        ([[1.0, 2.0]], [0], {"ks": (0,)}, "positive"),
        ([[1.0, 2.0]], [0], {"ties": "men"}, "did you mean 'mean'"),
    ],
)
def test_says_what_is_wrong(similarity: Any, image: Any, options: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        recall_at_k(similarity, image, **options)


def test_equals_the_references(shared: Path) -> None:
    folder = shared / "golden/metrics"
    arrays = np.load(folder / "retrieval_cases.npz")
    for case, expected in json.loads((folder / "retrieval_expected.json").read_text()).items():
        similarity, image = arrays[f"{case}__sim"], arrays[f"{case}__txt2img"]
        for ties in get_args(Ties):
            report = recall_at_k(similarity, image, ties=ties)
            for way, got in (("t2i", report.text_to_image), ("i2t", report.image_to_text)):
                if ties != "mean":
                    assert (got.ranks == arrays[f"{case}__{way}_rank_{ties[:3]}"] + 1).all()
                values = {f"R@{k}": got.recall[k] for k in (1, 5, 10)}
                values |= {"MedR": got.median_rank, "MeanR": got.mean_rank, "MRR": got.mean_reciprocal_rank}
                assert values == pytest.approx({k: expected[f"{way}_{ties}_{k}"] for k in values}), (case, way, ties)
        measured = {
            "sklearn_mAP": mean_average_precision(similarity, image, ties="pessimistic"),
            "sklearn_nDCG@10": ndcg(similarity, image, 10),
        }
        if "tied" not in case:
            measured["trec_map"] = mean_average_precision(similarity, image)
            measured["trec_ndcg_cut_10"] = ndcg(similarity, image, 10)
        for name, both in measured.items():
            assert both.text_to_image == pytest.approx(expected[f"t2i_{name}"], abs=1e-9), (case, name)
            assert both.image_to_text == pytest.approx(expected[f"i2t_{name}"], abs=1e-9), (case, name)


@pytest.mark.parametrize("ties", ["mean", "optimistic", "pessimistic"])
@pytest.mark.parametrize("block", [3, 512])
def test_vectors_give_what_their_matrix_gives(ties: Ties, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of any size, with many equal similarities (small whole numbers) and a picture without a text."""
    monkeypatch.setattr("vlm.metrics.retrieval._BLOCK", block)
    random = np.random.default_rng(5)
    texts, images = random.integers(-2, 3, size=(40, 3)), random.integers(-2, 3, size=(11, 3))
    image = random.integers(0, 10, size=40)
    assert_same(recall_from_vectors(texts, images, image, ties=ties), recall_at_k(texts @ images.T, image, ties=ties))


def assert_same(a: RetrievalReport, b: RetrievalReport) -> None:
    for one, other in ((a.text_to_image, b.text_to_image), (a.image_to_text, b.image_to_text)):
        np.testing.assert_array_equal(one.ranks, other.ranks)
        assert one.recall == other.recall


@pytest.mark.parametrize(
    ("texts", "images", "says"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), r"shape \(2, 3\) and \(2, 4\)"),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), "texts: 2 vectors are not finite"),
    ],
)
def test_vectors_that_cannot_be_compared(texts: np.ndarray, images: np.ndarray, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        recall_from_vectors(texts, images, [0, 1])

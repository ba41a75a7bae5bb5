"""Vectors shortened, composed and grouped: against the plain way."""

from __future__ import annotations

import numpy as np
import pytest

from vlm import vectors
from vlm.errors import BadInput
from vlm.heads.classification import Chance, classified, sentences
from vlm.vectors import composed, near_groups, shortened


def unit(rows: int, width: int = 6, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_shortened_vectors_keep_their_first_numbers_and_their_length() -> None:
    rows = unit(5)
    short = shortened(rows, 2)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(short[:, 0] * rows[:, 1], short[:, 1] * rows[:, 0], atol=1e-6)
    assert short.dtype == np.float32
    for width in (None, 6):
        assert shortened(rows, width) is rows
    for width in (0, 7):
        with pytest.raises(BadInput, match=f"width {width}: expected 1 to 6"):
            shortened(rows, width)


def test_a_composed_query_lies_between_its_parts() -> None:
    a, b = unit(2)
    half = composed([a, b], [0.5, 0.5])
    np.testing.assert_allclose(half, (a + b) / np.linalg.norm(a + b), atol=1e-6)
    assert half @ a == pytest.approx(half @ b, abs=1e-6)
    np.testing.assert_allclose(composed([a, b], [1.0, 0.0]), a, atol=1e-6)
    assert composed([a, b], [0.8, 0.2]) @ a > half @ a
    for vectors_, weights in (([a, -a], [0.5, 0.5]), ([a, b], [float("nan"), 1]), ([a, b], [1.0])):
        with pytest.raises(BadInput):
            composed(vectors_, weights)


@pytest.mark.parametrize("threshold", [0.55, 0.7, 0.9, 2.0])
def test_groups_are_the_connected_components(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 7)
    rows = unit(60)
    wanted: list[set[int]] = []
    for start in range(60):  # everything that can be reached
        seen, new = {start}, [start]
        while new:
            row = new.pop()
            near = set(np.flatnonzero(rows @ rows[row] >= threshold)) - seen
            seen |= near
            new += near
        if len(seen) > 1 and seen not in wanted:
            wanted.append(seen)
    found = near_groups(rows, threshold)
    assert sorted(map(sorted, wanted)) == sorted(found)
    assert [len(group) for group in found] == sorted((len(group) for group in found), reverse=True)


def test_a_chain_is_one_group_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 2)
    angles = np.array([0.0, 2.0, 0.4, 2.1, 0.2, 0.6])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert near_groups(rows, float(np.cos(0.25))) == [[0, 2, 4, 5], [1, 3]]
    assert near_groups(rows[:0], 0.5) == []


def test_classes_are_means_of_their_sentences() -> None:
    texts = {"a red": [1.0, 0.0], "the red": [0.0, 1.0], "a blue": [-1.0, 0.0], "the blue": [0.0, -1.0]}
    images = np.array([[0.6, 0.8], [-1.0, 0.0]], np.float32)

    def embed(asked: object) -> np.ndarray:
        return np.array([texts[text] for text in asked], np.float32)  # type: ignore[attr-defined]

    found = classified(images, ["red", "blue"], ["a {label}", "the {label}"], embed, 2.0)
    logit = 2 * (0.6 + 0.8) / np.sqrt(2)
    assert found[0][0].name == "red"
    assert found[0][0].probability == pytest.approx(1 / (1 + np.exp(-2 * logit)))
    assert found[1] == [Chance("blue", pytest.approx(1 - found[1][1].probability)), found[1][1]]
    assert sentences(["red", "blue"], ["a {label}", "the {label}"]) == list(texts)


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (["dog"], ["a {label}"], "at least two different names"),
        (["dog", "dog"], ["a {label}"], "at least two different names"),
        (["dog", " "], ["a {label}"], "name 2 is empty"),
        (["dog", "cat"], ["a photo"], "expected {label}"),
        (["dog", "cat"], [], "expected {label}"),
    ],
)
def test_what_cannot_be_classified_is_refused(names: list[str], templates: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        sentences(names, templates)

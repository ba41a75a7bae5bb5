"""The linear probe against scikit-learn 1.9's `LogisticRegression`, and how its strength is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.metrics.linear_probe import choose_strength, class_means, fit


def clouds(items: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds that overlap."""
    x, y = np.random.default_rng(0).normal(size=(items, 3)), np.arange(items) % 3
    return x + np.eye(3)[y], y


@pytest.mark.parametrize(
    ("strength", "weights", "bias"),
    [
        (
            0.1,
            [[0.18034, -0.08554, -0.20632], [-0.09169, 0.29303, -0.17137], [-0.08865, -0.20748, 0.37769]],
            [0.21747, 0.00706, -0.22453],
        ),
        (
            100.0,
            [[0.38044, -0.25497, -0.45882], [-0.1963, 0.66591, -0.39484], [-0.18414, -0.41094, 0.85365]],
            [0.48492, 0.03133, -0.51624],
        ),
    ],
)
def test_weights_are_those_of_scikit_learn(strength: float, weights: list[list[float]], bias: list[float]) -> None:
    found = fit(*clouds(), 3, strength)
    np.testing.assert_allclose(found.weights_CD, weights, atol=2e-4)
    np.testing.assert_allclose(found.bias_C - found.bias_C.mean(), bias, atol=2e-4)


def test_order_and_offset_of_the_features_change_nothing() -> None:
    x, y = clouds()
    order = np.random.default_rng(1).permutation(len(x))
    one, other = fit(x, y, 3), fit(x[order], y[order], 3)
    np.testing.assert_allclose(one.scores(x), other.scores(x), atol=1e-5)


def test_a_strength_is_chosen_by_what_is_held_out() -> None:
    """Small features of which one class is rare: a weak fit never names that. Of equals the least."""
    y = np.array(([0] * 9 + [1]) * 10)
    assert choose_strength(0.1 * np.eye(2)[y], y, 2, (0.01, 1e4)) == 1e4
    assert choose_strength(10 * np.eye(2)[y], y, 2, (1.0, 10.0)) == 1.0
    assert choose_strength(np.eye(3), np.arange(3), 3, (0.1, 1.0, 10.0)) == 1.0, "too few to hold any out"


def test_means_of_classes() -> None:
    means = class_means([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]], [0, 0, 1], 2)
    np.testing.assert_allclose(means, [[0.5**0.5, 0.5**0.5], [0, 1]])
    with pytest.raises(BadInput, match="1 of 3 classes have no item, such as class 2"):
        class_means(np.eye(2), [0, 1], 3)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match="expected"):
        fit(np.eye(3), [0, 1], 2)
    with pytest.raises(BadInput, match="labels 0 to 2 for 2 classes"):
        fit(np.eye(3), [0, 1, 2], 2)

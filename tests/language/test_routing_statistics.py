from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from vlm.language.mixture.statistics import RoutingStatistics, draw, recorded, routing_statistics

L, T, K, E = 3, 40, 2, 6


@pytest.fixture
def chosen() -> torch.Tensor:
    """Experts 0 to 4 of 6 at random; in the last layer everyone calls 0 and 1."""
    torch.manual_seed(0)
    chosen = torch.rand(L, T, E - 1).topk(K, dim=-1).indices
    chosen[-1] = torch.tensor([0, 1])
    return chosen


def test_counts_and_figures_equal_a_loop(chosen: torch.Tensor) -> None:
    image, mask = torch.arange(T) < 15, torch.arange(T) % 7 != 0
    found = routing_statistics(chosen, E, {"image": image, "text": ~image}, mask)
    for layer in range(L):
        count = Counter(int(e) for t in range(T) if mask[t] for e in chosen[layer, t])
        total = sum(count.values())
        assert found.calls_LE[layer].tolist() == [count[e] for e in range(E)]
        assert found.load_LE[layer].tolist() == pytest.approx([count[e] * E / total for e in range(E)])
        assert found.imbalance_L[layer].item() == pytest.approx(max(count.values()) * E / total)
        entropy = -sum(n / total * math.log(n / total) for n in count.values()) / math.log(E)
        assert found.entropy_L[layer].item() == pytest.approx(entropy)
        assert found.dead_LE[layer].tolist() == [count[e] == 0 for e in range(E)]
        mine = Counter(int(e) for t in range(15) if mask[t] for e in chosen[layer, t])
        expected = [mine[e] / mine.total() / (count[e] / total) if count[e] else 0 for e in range(E)]
        assert found.preference_LE("image")[layer].tolist() == pytest.approx(expected)
    torch.testing.assert_close(found.kinds["image"] + found.kinds["text"], found.calls_LE)
    assert found.dead_LE[-1].sum() == 4


def test_entropy_is_one_when_even_and_zero_for_one_expert() -> None:
    even = routing_statistics(torch.arange(E).reshape(1, E, 1), E)
    assert (even.entropy_L.item(), even.imbalance_L.item()) == (pytest.approx(1), 1)
    alone = routing_statistics(torch.zeros(1, E, 1, dtype=torch.long), E)
    assert (alone.entropy_L.item(), alone.imbalance_L.item()) == (0, E)
    assert routing_statistics(torch.zeros(2, 5, 1, dtype=torch.long), 1).entropy_L.tolist() == [0, 0]


def test_batches_add_up(chosen: torch.Tensor) -> None:
    image = torch.arange(T) < 15
    whole = routing_statistics(chosen, E, {"image": image})
    parts = [
        routing_statistics(chosen[:, :20], E, {"image": image[:20]}),
        routing_statistics(chosen[:, 20:], E),  # no token of the kind, and none named
    ]
    for added in (parts[0] + parts[1], parts[1] + parts[0]):
        assert torch.equal(added.calls_LE, whole.calls_LE)
        assert torch.equal(added.kinds["image"], whole.kinds["image"])


def test_slots_that_are_not_used_are_no_calls(chosen: torch.Tensor) -> None:
    chosen[:, ::2, 1] = -1
    found = routing_statistics(chosen, E)
    assert found.calls_LE.sum(1).tolist() == [1.5 * T] * L
    assert found.experts_a_token_L.tolist() == [1.5] * L
    assert (found + found).experts_a_token_L.tolist() == [1.5] * L


def test_a_text_of_padding_alone_has_no_load() -> None:
    found = routing_statistics(torch.zeros(1, 4, 1, dtype=torch.long), 2, mask_T=torch.zeros(4, dtype=torch.bool))
    assert found.load_LE.tolist() == [[0, 0]]
    assert found.entropy_L.tolist() == [0]


@torch.no_grad()
def test_a_models_routers_are_recorded_and_left_as_they_were() -> None:
    model = tiny.language()
    tokens = torch.randint(320, (2, 9))
    with recorded(model.routers()) as seen:
        model(tokens[:, :5])
        model(tokens[:, 5:])
    model(tokens)
    chosen = torch.stack([torch.cat(calls) for calls in seen])
    assert chosen.shape == (2, 18, tiny.MOE.top_k)
    assert routing_statistics(chosen, tiny.MOE.experts).calls_LE.sum(1).tolist() == [36, 36]
    expected = model.routers()[0](torch.zeros(1, 32))[1]
    assert expected.shape == (1, 2)
    assert sum(len(calls) for calls in seen) == 4


@pytest.mark.parametrize("kinds", [0, 2])
def test_picture_has_a_panel_a_kind(tmp_path: Path, chosen: torch.Tensor, kinds: int) -> None:
    image = torch.arange(T) < 15
    found = routing_statistics(chosen, E, {"image": image, "text": ~image} if kinds else None)
    draw(found, tmp_path / "routing.png")
    even = RoutingStatistics(torch.ones(L, E), {name: torch.ones(L, E) for name in found.kinds})
    draw(even, tmp_path / "even.png")
    black = []
    for name in ("routing.png", "even.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert picture.height > 200 * (1 + kinds)
            black.append(int((np.asarray(picture.convert("RGB")) == 0).all(-1).sum()))
    assert black[0] > 1.5 * black[1]  # dead experts

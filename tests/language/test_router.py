"""Routers of mixture layers: which experts they choose, with what gates, and how they balance the load."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vlm.language.config.mixture import MoEConfig
from vlm.language.mixture.moe import Router


def small(experts: int, top_k: int) -> Router:
    torch.manual_seed(0)
    return Router(32, MoEConfig(experts=experts, top_k=top_k, width=8)).eval()


def test_gates_sum_to_one_over_the_best_scores() -> None:
    router = small(8, 3)
    x = torch.randn(40, 32)
    gates, chosen = router(x)
    assert gates.shape == chosen.shape == (40, 3)
    torch.testing.assert_close(gates.sum(1), torch.ones(40))
    scores = router.centroids(x).sigmoid()
    best = scores.topk(3).indices
    assert torch.equal(chosen.sort().values, best.sort().values)
    assert all(len(set(row)) == 3 for row in chosen.tolist())


def test_bias_changes_the_choice_and_not_the_gates() -> None:
    router = small(4, 2)
    x = torch.randn(30, 32)
    scores = router.centroids(x).sigmoid()
    router.bias_E[3] = 10.0
    gates, chosen = router(x)
    assert bool((chosen == 3).any(1).all())
    picked = scores.gather(1, chosen)
    torch.testing.assert_close(gates, picked / picked.sum(1, keepdim=True))


def test_balance_moves_biases_against_the_load_and_forgets_it() -> None:
    router = Router(32, MoEConfig(experts=4, top_k=1, width=8, bias_update_rate=0.5))
    router.load_E.copy_(torch.tensor([10.0, 2.0, 4.0, 0.0]))
    router.balance()
    assert router.bias_E.tolist() == [-0.5, 0.5, 0.0, 0.5]
    assert router.load_E.tolist() == [0.0] * 4


def test_balance_evens_out_a_skewed_router() -> None:
    torch.manual_seed(0)
    router = Router(32, MoEConfig(experts=4, top_k=1, width=8, bias_update_rate=0.01)).train()
    x = torch.randn(400, 32) + 1.0
    with torch.no_grad():
        router.centroids.weight[0] += 0.05  # inputs lean one way, and so does one expert
        first = torch.bincount(router(x)[1].flatten(), minlength=4) / 400
        router.load_E.zero_()
        for _ in range(200):
            router(x)
            router.balance()
        last = torch.bincount(router(x)[1].flatten(), minlength=4) / 400
    assert first.max() > 0.6
    assert last.max() < 0.3
    assert last.min() > 0.2


def test_load_is_counted_in_training_only() -> None:
    router = small(4, 2)
    router(torch.randn(7, 32))
    assert router.load_E.sum() == 0
    router.train()(torch.randn(7, 32))
    assert router.load_E.sum() == 14
    assert "load_E" not in router.state_dict()


@torch.no_grad()
def test_a_router_in_bfloat16_computes_its_logits_in_float32() -> None:
    """Rounded logits of 64 experts are often equal, and gates off by a percent."""
    torch.manual_seed(0)
    router = Router(256, MoEConfig(experts=64, top_k=4, width=8)).eval()
    router.centroids.bfloat16()
    x = torch.randn(300, 256).bfloat16()
    exact = F.linear(x.double(), router.centroids.weight.double())
    torch.testing.assert_close(router.logits(x).double(), exact, rtol=0, atol=1e-5)
    gates, chosen = router(x)
    assert gates.dtype == torch.bfloat16
    assert torch.equal(chosen, exact.topk(4).indices)
    assert not torch.equal(router.centroids(x).topk(4).indices, chosen)


ADAPTIVE = {"experts": 8, "top_k": 4, "width": 8, "scoring": "softmax", "normalise": False}


@pytest.mark.parametrize("balanced", [False, True])
def test_a_budget_is_kept_on_average_also_by_tokens_it_was_not_found_on(balanced: bool) -> None:
    torch.manual_seed(0)
    moe = MoEConfig(**ADAPTIVE, balanced=balanced, adaptive={"p": 0.9, "budget": 1.75})
    router = Router(32, moe).train()
    for _ in range(60):
        router(3 * torch.randn(2, 256, 32))
        router.balance()
    gates, chosen = router.eval()(3 * torch.randn(8, 256, 32))
    counts = (chosen >= 0).sum(-1)
    assert counts.float().mean().item() == pytest.approx(1.75, abs=0.1)
    assert set(counts.unique().tolist()) == {1, 2, 3, 4}
    assert bool(((gates > 0) == (chosen >= 0)).all())
    assert "p" in router.state_dict()

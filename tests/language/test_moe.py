from __future__ import annotations

import pytest
import tiny
import torch
from torch.nn import functional as F

from vlm.language.config import MoEConfig
from vlm.language.moe import MixtureOfExperts, RoutedExperts, Router


def mixture(experts: int = 4, top_k: int = 2, seed: int = 0) -> MixtureOfExperts:
    torch.manual_seed(seed)
    moe = MoEConfig(experts=experts, top_k=top_k, width=8)
    return MixtureOfExperts(tiny.LANGUAGE.model_copy(update={"moe": moe})).eval()


def loop(layer: MixtureOfExperts, x_BTD: torch.Tensor) -> torch.Tensor:
    """The layer's definition, a token and an expert at a time."""
    out = torch.zeros_like(x_BTD)
    routed = layer.routed
    for b, t in torch.cartesian_prod(*(torch.arange(n) for n in x_BTD.shape[:2])).tolist():
        x = x_BTD[b, t]
        scores = torch.sigmoid(layer.router.centroids.weight @ x)
        chosen = (scores + layer.router.bias_E).argsort(descending=True)[: layer.router.top_k]
        out[b, t] = layer.shared(x)
        for e in chosen.tolist():
            hidden = F.silu(routed.gate_EFD[e] @ x) * (routed.up_EFD[e] @ x)
            out[b, t] += scores[e] / scores[chosen].sum() * (routed.down_EDF[e] @ hidden)
    return out


@pytest.mark.parametrize(("experts", "top_k"), [(4, 2), (8, 1), (3, 3)])
@torch.no_grad()
def test_layer_equals_a_loop_over_tokens(experts: int, top_k: int) -> None:
    layer = mixture(experts, top_k)
    layer.router.bias_E.normal_(std=0.2)
    x = torch.randn(3, 11, 32)
    torch.testing.assert_close(layer(x), loop(layer, x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_expert_nobody_calls_is_no_trouble() -> None:
    layer = mixture(experts=4, top_k=1)
    layer.router.bias_E[2] = 10.0
    x = torch.randn(1, 5, 32)
    torch.testing.assert_close(layer(x), loop(layer, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 127, 128, 129, 300])
def test_rows_beside_the_padding_threshold(rows: int) -> None:
    """All tokens go to one expert, whose row count is padded or not: values and gradients are those of a product."""
    torch.manual_seed(0)
    routed = RoutedExperts(32, MoEConfig(experts=2, top_k=1, width=8))
    x = torch.randn(rows, 32, requires_grad=True)
    gates, chosen = torch.rand(rows, 1), torch.ones(rows, 1, dtype=torch.long)
    out = routed(x, gates, chosen)
    expected = gates * ((F.silu(x @ routed.gate_EFD[1].T) * (x @ routed.up_EFD[1].T)) @ routed.down_EDF[1].T)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    weights = [x, *routed.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(out.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_gates_sum_to_one_over_the_best_scores() -> None:
    router = mixture(8, 3).router
    x = torch.randn(40, 32)
    gates, chosen = router(x)
    assert gates.shape == chosen.shape == (40, 3)
    torch.testing.assert_close(gates.sum(1), torch.ones(40))
    scores = router.centroids(x).sigmoid()
    best = scores.topk(3).indices
    assert torch.equal(chosen.sort().values, best.sort().values)
    assert all(len(set(row)) == 3 for row in chosen.tolist())


def test_bias_changes_the_choice_and_not_the_gates() -> None:
    router = mixture(4, 2).router
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
    router = mixture(4, 2).router
    router(torch.randn(7, 32))
    assert router.load_E.sum() == 0
    router.train()(torch.randn(7, 32))
    assert router.load_E.sum() == 14
    assert "load_E" not in router.state_dict()

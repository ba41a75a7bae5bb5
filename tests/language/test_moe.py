from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional as F

from vlm.language.config import MoEConfig
from vlm.language.experts import RoutedExperts
from vlm.language.moe import MixtureOfExperts, Router


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


def definition(layer: MixtureOfExperts, x_BTD: torch.Tensor) -> torch.Tensor:
    """Every option of the layer, one token and one expert at a time, differentiable."""
    cfg, router, routed = layer.router.cfg, layer.router, layer.routed
    rows = []
    for x in x_BTD.flatten(0, 1):
        logits = router.centroids.weight @ x
        scores = logits.sigmoid() if cfg.scoring == "sigmoid" else logits.exp() / logits.exp().sum()
        wished = (scores + router.bias_E).tolist()
        size = cfg.experts // cfg.groups
        members = [list(range(g * size, (g + 1) * size)) for g in range(cfg.groups)]
        count = 1 if cfg.group_score == "max" else 2
        worth = [sum(sorted((wished[e] for e in group), reverse=True)[:count]) for group in members]
        kept = sorted(range(cfg.groups), key=lambda g: -worth[g])[: cfg.groups_kept] if cfg.groups > 1 else [0]
        candidates = [e for g in kept for e in members[g]]
        chosen = sorted(candidates, key=lambda e: -wished[e])[: cfg.top_k]
        total = sum(scores[e] for e in chosen) if cfg.normalise else 1.0
        out = torch.zeros_like(x)
        for e in chosen:
            hidden = F.silu(routed.gate_EFD[e] @ x) * (routed.up_EFD[e] @ x)
            out = out + cfg.scale * scores[e] / total * (routed.down_EDF[e] @ hidden)
        if layer.shared is not None:
            weight = (layer.shared_gate.weight @ x).sigmoid() if layer.shared_gate is not None else 1.0
            out = out + weight * layer.shared(x)
        rows.append(out)
    return torch.stack(rows).view_as(x_BTD)


OPTIONS = [
    {"experts": 6, "top_k": 2},
    {"experts": 6, "top_k": 3, "scoring": "softmax", "normalise": False, "balanced": False, "shared_width": 0},
    {"experts": 8, "top_k": 3, "groups": 4, "groups_kept": 2, "scale": 2.5},
    {"experts": 8, "top_k": 4, "groups": 4, "groups_kept": 2, "group_score": "max", "scoring": "softmax",
     "normalise": False, "scale": 4.0},
    {"experts": 5, "top_k": 2, "scoring": "softmax", "shared_width": 12, "shared_gate": True},
    {"experts": 3, "top_k": 3, "shared_width": 7},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("tokens", [1, 9])
def test_values_and_gradients_are_those_of_the_loop_in_float64(options: dict[str, Any], tokens: int) -> None:
    torch.manual_seed(0)
    moe = MoEConfig.model_validate({"width": 8, **options})
    layer = MixtureOfExperts(tiny.LANGUAGE.model_copy(update={"moe": moe})).double()
    layer.router.bias_E.normal_(std=0.2)
    layer.router.scores = lambda x: _exact_scores(layer.router, x)  # scores are float32 by design
    x = torch.randn(2, tokens, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, tokens, 32, dtype=torch.float64)
    ours, expected = layer(x), definition(layer, x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    names, leaves = zip(*[("x", x), *layer.named_parameters()], strict=True)
    found, wanted = (torch.autograd.grad((out * weight).sum(), leaves) for out in (ours, expected))
    for name, a, b in zip(names, found, wanted, strict=True):
        assert b.abs().max() > 1e-6, name
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)


def _exact_scores(router: Router, x_TD: torch.Tensor) -> torch.Tensor:
    logits_TE = router.centroids(x_TD)
    return logits_TE.sigmoid() if router.cfg.scoring == "sigmoid" else logits_TE.softmax(-1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": 3}, "experts 8 is not a multiple of groups 3"),
        ({"groups": 4, "groups_kept": 5}, "groups_kept 5 is more than the 4 groups"),
        ({"groups": 4, "groups_kept": 1, "top_k": 3}, "top_k 3 is more than the 2 experts of 1 groups"),
        ({"groups": 8, "groups_kept": 4}, "group_score top2 needs groups of two experts, got 8 in 8"),
        ({"shared_gate": True, "shared_width": 0}, "shared_gate needs a shared expert"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MoEConfig.model_validate({"experts": 8, "top_k": 2, "width": 4} | change)


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

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional as F

from vlm.language.config.mixture import MoEConfig
from vlm.language.decoder import LanguageModel
from vlm.language.mixture.experts import RoutedExperts
from vlm.language.mixture.moe import MixtureOfExperts, Router


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
        shares = (scores / scores.sum()).tolist()
        wished = (scores + router.bias_E).tolist()
        size = cfg.experts // cfg.groups
        members = [list(range(g * size, (g + 1) * size)) for g in range(cfg.groups)]
        count = 1 if cfg.group_score == "max" else 2
        worth = [sum(sorted((wished[e] for e in group), reverse=True)[:count]) for group in members]
        kept = sorted(range(cfg.groups), key=lambda g: -worth[g])[: cfg.groups_kept] if cfg.groups > 1 else [0]
        candidates = [e for g in kept for e in members[g]]
        chosen = sorted(candidates, key=lambda e: -wished[e])[: cfg.top_k]
        if cfg.adaptive is not None:
            enough = [n for n in range(1, cfg.top_k) if sum(shares[e] for e in chosen[:n]) >= cfg.adaptive.p]
            chosen = chosen[: min(enough, default=cfg.top_k)]
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
    {"experts": 6, "top_k": 4, "adaptive": {"p": 0.6}, "scoring": "softmax", "normalise": False},
    {"experts": 8, "top_k": 4, "adaptive": {"p": 0.3}, "groups": 4, "groups_kept": 3, "scale": 1.5},
    {"experts": 5, "top_k": 2, "sequence_balance": 0.5, "batch_balance": 0.3, "z_loss": 0.1},
    {"experts": 6, "top_k": 3, "adaptive": {"p": 0.5}, "scoring": "softmax", "sequence_balance": 0.5, "z_loss": 0.1},
]  # fmt: skip


def stated_losses(router: Router, x_BTD: torch.Tensor, chosen_BTk: torch.Tensor) -> dict[str, torch.Tensor]:
    """DeepSeek-V3's equations 17 to 20, Switch's 4 to 6, ST-MoE's 5, in sums over single tokens and experts."""
    cfg = router.cfg

    def balance(sequence: list[tuple[torch.Tensor, list[int]]]) -> torch.Tensor:
        calls = [e for _, chosen in sequence for e in chosen if e >= 0]
        total = torch.zeros((), dtype=x_BTD.dtype)
        for e in range(cfg.experts):
            f = cfg.experts * calls.count(e) / len(calls)
            logits = [router.centroids.weight @ x for x, _ in sequence]
            scores = [row.sigmoid() if cfg.scoring == "sigmoid" else row.softmax(0) for row in logits]
            total = total + f * sum(row[e] / row.sum() for row in scores) / len(sequence)
        return total

    sequences = [list(zip(x, chosen.tolist(), strict=True)) for x, chosen in zip(x_BTD, chosen_BTk, strict=True)]
    tokens = [token for sequence in sequences for token in sequence]
    z = [(router.centroids.weight @ x).exp().sum().log() ** 2 for x, _ in tokens]
    losses = {
        "sequence_balance": sum(balance(s) for s in sequences) / len(sequences),
        "batch_balance": balance(tokens),
        "z_loss": sum(z) / len(z),
    }
    return {kind: getattr(cfg, kind) * loss for kind, loss in losses.items() if getattr(cfg, kind)}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("tokens", [1, 9])
def test_values_losses_and_gradients_are_those_of_the_loop_in_float64(options: dict[str, Any], tokens: int) -> None:
    torch.manual_seed(0)
    moe = MoEConfig.model_validate({"width": 8, **options})
    layer = MixtureOfExperts(tiny.LANGUAGE.model_copy(update={"moe": moe})).double().train()
    layer.router.bias_E.normal_(std=0.2)
    x = torch.randn(2, tokens, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, tokens, 32, dtype=torch.float64)
    ours, expected = layer(x), definition(layer, x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    losses, stated = layer.router.losses, stated_losses(layer.router, x, layer.router(x)[1])
    assert losses.keys() == stated.keys()
    for kind, loss in losses.items():
        torch.testing.assert_close(loss, stated[kind])
    names, leaves = zip(*[("x", x), *layer.named_parameters()], strict=True)
    found, wanted = (
        torch.autograd.grad((out * weight).sum() + sum(extra.values()), leaves)
        for out, extra in ((ours, losses), (expected, stated))
    )
    for name, a, b in zip(names, found, wanted, strict=True):
        # One token of one expert, normalised: its gate is 1 whatever the router says.
        assert b.abs().max() > 1e-6 or (name == "router.centroids.weight" and tokens == 1), name
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": 3}, "experts 8 is not a multiple of groups 3"),
        ({"groups": 4, "groups_kept": 5}, "groups_kept 5 is more than the 4 groups"),
        ({"groups": 4, "groups_kept": 1, "top_k": 3}, "top_k 3 is more than the 2 experts of 1 groups"),
        ({"groups": 8, "groups_kept": 4}, "group_score top2 needs groups of two experts, got 8 in 8"),
        ({"shared_gate": True, "shared_width": 0}, "shared_gate needs a shared expert"),
        ({"adaptive": {"budget": 2.5}}, "a budget of 2.5 experts a token is more than top_k 2"),
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


def test_losses_are_kept_in_training_only_and_handed_over_by_the_model() -> None:
    moe = tiny.MOE.model_copy(update={"sequence_balance": 0.1, "z_loss": 0.01})
    model = LanguageModel(tiny.LANGUAGE.model_copy(update={"moe": moe}))
    tokens = torch.randint(320, (2, 9))
    model.eval()(tokens)
    assert model.router_losses() == {}
    model.train()(tokens)
    kept = [router.losses for router in model.routers()]
    losses = model.router_losses()
    assert losses.keys() == {"sequence_balance", "z_loss"}
    for kind, loss in losses.items():
        torch.testing.assert_close(loss, sum(one[kind] for one in kept))
    assert model.router_losses() == {}
    sum(losses.values()).backward()
    assert all(router.centroids.weight.grad.abs().max() > 0 for router in model.routers())


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_counts_in_no_load_and_no_loss(side: str) -> None:
    moe = tiny.MOE.model_copy(update={"sequence_balance": 1.0, "batch_balance": 1.0, "z_loss": 1.0})
    torch.manual_seed(0)
    model = LanguageModel(tiny.LANGUAGE.model_copy(update={"moe": moe})).train()
    tokens = torch.randint(320, (2, 9))
    pad = (4, 0) if side == "left" else (0, 4)
    model(tokens)
    expected, loads = model.router_losses(), [router.load_E.clone() for router in model.routers()]
    for router in model.routers():
        router.load_E.zero_()
    model(F.pad(tokens, pad), F.pad(torch.ones(2, 9), pad))
    for kind, loss in model.router_losses().items():
        torch.testing.assert_close(loss, expected[kind])
    assert all(torch.equal(r.load_E, load) for r, load in zip(model.routers(), loads, strict=True))


@torch.no_grad()
def test_slots_that_are_not_used_are_not_computed() -> None:
    torch.manual_seed(0)
    routed = RoutedExperts(32, MoEConfig(experts=4, top_k=2, width=8))
    for tokens in (1, 7, 300):
        x, gates, chosen = torch.randn(tokens, 32), torch.rand(tokens, 2), torch.randint(3, (tokens, 2))
        chosen[:, 1] = torch.where(torch.rand(tokens) < 0.5, -1, chosen[:, 1])
        chosen[0, 1] = -1
        used = chosen >= 0
        expected = routed(x, gates * used, chosen.clamp(min=0))
        torch.testing.assert_close(routed(x, gates * used, chosen), expected)
        # An expert that only unused slots could mean is not read.
        routed.gate_EFD[3].fill_(torch.nan)
        assert bool(routed(x, gates * used, chosen).isfinite().all())

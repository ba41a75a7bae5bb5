"""The fast paths of the routed experts against the plain one, an expert at a time in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlm.language.config.mixture import MoEConfig
from vlm.language.mixture import dispatch
from vlm.language.mixture.experts import RoutedExperts


def layer(experts: int, k: int, width: int = 12, hidden: int = 5) -> RoutedExperts:
    torch.manual_seed(experts)
    return RoutedExperts(width, MoEConfig(experts=experts, top_k=k, width=hidden)).double()


def routed(tokens: int, experts: int, k: int, skew: float = 1.0, width: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """States, gates and experts; `skew` gathers the tokens at the first experts."""
    torch.manual_seed(tokens)
    liking = torch.rand(tokens, experts) * torch.arange(1, experts + 1).pow(-skew)
    gates = torch.rand(tokens, k, dtype=torch.float64)
    return torch.randn(tokens, width, dtype=torch.float64), gates, liking.topk(k).indices


def check_gradients(experts: RoutedExperts, x: Tensor, gates: Tensor, chosen: Tensor) -> None:
    x.requires_grad_(), gates.requires_grad_()
    weight = torch.randn_like(x)
    leaves = [x, gates, *experts.parameters()]
    fast, plain = experts(x, gates, chosen), experts.plain(x, gates, chosen)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    found, wanted = (torch.autograd.grad((out * weight).sum(), leaves) for out in (fast, plain))
    for ours, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("part_rows", [8, 512])
@pytest.mark.parametrize("skew", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("tokens", "experts", "k"), [(1, 6, 2), (4, 16, 3), (16, 16, 4), (90, 8, 2), (33, 3, 3)])
def test_values_and_gradients_are_those_of_the_plain_path(
    tokens: int, experts: int, k: int, skew: float, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "PART_ROWS", part_rows)  # several parts, and one
    module = layer(experts, k)
    x, gates, chosen = routed(tokens, experts, k, skew)
    with torch.no_grad():  # few rows go row by row
        torch.testing.assert_close(module(x, gates, chosen), module.plain(x, gates, chosen), rtol=0, atol=1e-12)
    check_gradients(module, x, gates, chosen)


def test_all_tokens_at_one_expert() -> None:
    module = layer(6, 1)
    x, gates, _ = routed(700, 6, 1)
    check_gradients(module, x, gates, torch.full((700, 1), 4))


@pytest.mark.parametrize("grad", [False, True])
def test_no_tokens(grad: bool) -> None:
    module = layer(4, 2)
    x, gates, chosen = routed(0, 4, 2)
    with torch.set_grad_enabled(grad):
        out = module(x, gates, chosen)
    assert out.shape == (0, 12)
    if grad:
        out.sum().backward()
        assert module.gate_EFD.grad is not None
        assert not module.gate_EFD.grad.any()


def test_frozen_experts_pass_the_gradient_on() -> None:
    module = layer(6, 2).requires_grad_(False)
    x, gates, chosen = routed(20, 6, 2)
    x.requires_grad_()
    grads = [
        torch.autograd.grad(path(x, gates, chosen).square().sum(), x)[0] for path in (module.forward, module.plain)
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-11)


@pytest.mark.parametrize("tokens", [1, 5, 60])
def test_sixteen_bit_weights_are_as_near_as_their_rounding(tokens: int) -> None:
    """Their rows are padded to tiles."""
    module = layer(8, 2, width=64, hidden=32)
    x, gates, chosen = routed(tokens, 8, 2, width=64)
    exact = module.plain(x, gates, chosen)
    low = module.bfloat16()
    fast = low(x.bfloat16().requires_grad_(), gates.bfloat16(), chosen)
    assert fast.dtype == torch.bfloat16
    assert (fast.double() - exact).abs().max() < 0.03 * exact.abs().max()
    fast.float().sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(low(x.bfloat16(), gates.bfloat16(), chosen), fast, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("tokens", [1, 30])
def test_autocast_computes_in_its_type(tokens: int) -> None:
    module = layer(8, 2, width=64, hidden=32).float()
    x, gates, chosen = routed(tokens, 8, 2, width=64)
    x, gates = x.float().requires_grad_(), gates.float()
    exact = module.plain(x, gates, chosen)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x, gates, chosen)
        assert out.dtype == torch.bfloat16
        with torch.no_grad():
            torch.testing.assert_close(module(x, gates, chosen), out, rtol=0.05, atol=0.05)
    assert (out.float() - exact).abs().max() < 0.03 * exact.abs().max()
    grads = torch.autograd.grad(out.float().sum(), [x, *module.parameters()])
    wanted = torch.autograd.grad(exact.sum(), [x, *module.parameters()])
    for ours, expected in zip(grads, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - expected).abs().max() < 0.04 * expected.abs().max()

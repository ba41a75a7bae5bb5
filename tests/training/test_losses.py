"""The head's loss in pieces is the plain one, and never holds all logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vlm.training.losses import head_loss

R, D, V = 37, 16, 50


def inputs(dtype: torch.dtype, bias: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(R, D), (V, D), *([(V,)] if bias else [])]
    tensors = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return tensors, torch.randint(V, (R,), generator=generator)


@pytest.mark.parametrize("piece", [1, 8, 37, 64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradients_are_the_plain_ones(dtype: torch.dtype, bias: bool, piece: int) -> None:
    own, labels_R = inputs(dtype, bias)
    plain = [tensor.detach().clone().requires_grad_() for tensor in own]
    ours = head_loss(own[0], own[1], own[2] if bias else None, labels_R, piece)
    theirs = F.cross_entropy(F.linear(*plain).float(), labels_R, reduction="sum")
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)
    (0.3 * ours).backward()
    (0.3 * theirs).backward()
    for a, b in zip(own, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_in_bfloat16_it_is_as_near_as_the_plain_one() -> None:
    own, labels_R = inputs(torch.bfloat16, False)
    exact = [tensor.detach().double().requires_grad_() for tensor in own]
    head_loss(own[0], own[1], None, labels_R, 8).backward()
    F.cross_entropy(F.linear(*exact), labels_R, reduction="sum").backward()
    for a, b in zip(own, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.dtype == torch.bfloat16
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=0.02, atol=0.02)


def test_only_what_learns_gets_a_gradient() -> None:
    own, labels_R = inputs(torch.float32, False)
    frozen = own[1].detach()
    head_loss(own[0], frozen, None, labels_R, 8).backward()
    assert own[0].grad is not None
    assert frozen.grad is None


class _Largest(TorchDispatchMode):
    """The most numbers that any result has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.numbers = max(self.numbers, found.numel())
        return found


def test_all_logits_are_never_there_at_once() -> None:
    hidden = torch.randn(400, D, requires_grad=True)
    weight = torch.randn(V, D, requires_grad=True)
    with _Largest() as seen:
        head_loss(hidden, weight, None, torch.randint(V, (400,)), 16).backward()
    assert seen.numbers == 400 * D  # the states themselves; the logits are 400 * V

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlm.language.mixture.balance import (
    batch_balance_loss,
    relative_load,
    router_z_loss,
    sequence_balance_loss,
    updated_bias,
)

B, T, E, K = 3, 7, 6, 2


@pytest.fixture
def routed() -> tuple[Tensor, Tensor, Tensor]:
    """Sigmoid scores in float64, chosen experts, and a mask with a sequence of padding alone."""
    torch.manual_seed(0)
    scores = torch.rand(B, T, E, dtype=torch.float64).add(0.01).requires_grad_()
    mask = torch.rand(B, T) < 0.7
    mask[1] = False
    return scores, scores.topk(K, dim=-1).indices, mask


def loop(scores: Tensor, chosen: Tensor, mask: Tensor) -> Tensor:
    """One sequence's loss from the equations, in plain Python. `scores` `[T, E]`."""
    tokens = [t for t in range(len(scores)) if mask[t]]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(E):
        f = E / (K * len(tokens)) * sum(i in chosen[t].tolist() for t in tokens)
        p = sum(scores[t, i] / scores[t].sum() for t in tokens) / len(tokens)
        total = total + f * p
    return total


def test_sequence_loss_and_its_gradient_equal_the_equations(routed: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, chosen, mask = routed
    ours = sequence_balance_loss(scores, chosen, mask)
    expected = (loop(scores[0], chosen[0], mask[0]) + loop(scores[2], chosen[2], mask[2])) / 2
    torch.testing.assert_close(ours, expected)
    for a, b in zip(torch.autograd.grad(ours, scores), torch.autograd.grad(expected, scores), strict=True):
        torch.testing.assert_close(a, b)


def test_batch_loss_is_that_of_one_long_sequence(routed: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, chosen, mask = routed
    expected = loop(scores.flatten(0, 1), chosen.flatten(0, 1), mask.flatten())
    torch.testing.assert_close(batch_balance_loss(scores, chosen, mask), expected)


def test_without_a_mask_every_token_counts(routed: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, chosen, _ = routed
    every = torch.ones(B, T, dtype=torch.bool)
    expected = torch.stack([loop(scores[b], chosen[b], every[b]) for b in range(B)]).mean()
    torch.testing.assert_close(sequence_balance_loss(scores, chosen), expected)
    assert torch.equal(sequence_balance_loss(scores, chosen), sequence_balance_loss(scores, chosen, every))


def test_slots_that_are_not_used_count_nowhere() -> None:
    """With adaptive routing a token may call fewer than k experts; shares are of the calls that were made."""
    torch.manual_seed(0)
    scores = torch.rand(2, T, E, dtype=torch.float64)
    chosen = scores.topk(3, dim=-1).indices
    chosen[torch.rand(chosen.shape) < 0.4] = -1
    load = relative_load(chosen, E)
    for b in range(2):
        calls = [e for e in chosen[b].flatten().tolist() if e >= 0]
        assert load[b].tolist() == pytest.approx([E * calls.count(e) / len(calls) for e in range(E)])
    expected = (load * (scores / scores.sum(-1, keepdim=True)).mean(1)).sum(1).mean()
    torch.testing.assert_close(sequence_balance_loss(scores, chosen), expected)


def test_losses_are_one_when_even_and_the_number_of_experts_when_all_go_to_one() -> None:
    even, chosen = torch.full((1, E, E), 0.5), torch.arange(E).reshape(1, E, 1)
    assert sequence_balance_loss(even, chosen).item() == pytest.approx(1)
    one = torch.nn.functional.one_hot(torch.zeros(1, E, dtype=torch.long), E).float()
    assert sequence_balance_loss(one, torch.zeros(1, E, 1, dtype=torch.long)).item() == pytest.approx(E)


def test_a_batch_may_balance_what_its_sequences_do_not() -> None:
    scores = torch.zeros(2, 4, 2)
    scores[0, :, 0] = scores[1, :, 1] = 1.0
    chosen = scores.argmax(-1, keepdim=True)
    assert batch_balance_loss(scores, chosen).item() == pytest.approx(1)
    assert sequence_balance_loss(scores, chosen).item() == pytest.approx(2)


def test_descending_the_loss_evens_out_a_router() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 400, 16) + 1, (torch.randn(16, E) * 0.2).requires_grad_()
    with torch.no_grad():
        weight[:, 0] += 0.1
    optimizer = torch.optim.Adam([weight], lr=0.02)
    worst = []
    for _ in range(150):
        scores = (x @ weight).softmax(-1)
        chosen = scores.topk(K, dim=-1).indices
        worst.append(relative_load(chosen, E).max().item())
        optimizer.zero_grad()
        batch_balance_loss(scores, chosen).backward()
        optimizer.step()
    assert worst[0] > 1.8
    assert worst[-1] < 1.3


def test_z_loss_equals_a_loop_and_gradcheck(routed: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, _, mask = routed
    tokens = [(b, t) for b in range(B) for t in range(T) if mask[b, t]]
    expected = sum(logits[b, t].exp().sum().log() ** 2 for b, t in tokens) / len(tokens)
    torch.testing.assert_close(router_z_loss(logits, mask), expected)
    assert torch.autograd.gradcheck(lambda x: router_z_loss(x, mask), logits)
    assert router_z_loss(logits, torch.zeros_like(mask)).item() == 0


def test_bias_rises_for_the_idle_and_falls_for_the_busy() -> None:
    bias = updated_bias(torch.zeros(4), torch.tensor([10, 2, 4, 0]), rate=0.5)
    assert bias.tolist() == [-0.5, 0.5, 0.0, 0.5]

from __future__ import annotations

import itertools

import pytest
import torch

from vlm.language.mixture.routing import budget_p, mass_before, within_mass


@pytest.fixture
def scores() -> torch.Tensor:
    """Softmax scores from sure to undecided tokens."""
    torch.manual_seed(0)
    return (torch.randn(60, 8) * torch.linspace(0.2, 4, 60)[:, None]).softmax(1)


def top_p(scores: torch.Tensor, p: float, k_max: int) -> torch.Tensor:
    ranked = scores.topk(k_max).indices
    return within_mass(ranked, mass_before(scores, ranked), p)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("k_max", [1, 3, 8])
def test_the_smallest_set_that_reaches_p(scores: torch.Tensor, p: float, k_max: int) -> None:
    for row, chosen in zip(scores.double().tolist(), top_p(scores, p, k_max).tolist(), strict=True):
        best = sorted(range(8), key=lambda e: -row[e])
        count, mass = 1, row[best[0]] / sum(row)
        while mass < p and count < k_max:
            mass += row[best[count]] / sum(row)
            count += 1
        assert chosen == best[:count] + [-1] * (k_max - count)


def test_more_mass_never_drops_an_expert(scores: torch.Tensor) -> None:
    chosen = [top_p(scores, p, 6) for p in torch.linspace(0, 1, 21).tolist()]
    for fewer, more in itertools.pairwise(chosen):
        assert torch.equal(fewer[fewer >= 0], more[fewer >= 0])
    assert (chosen[0] >= 0).sum(-1).tolist() == [1] * 60
    counts = (chosen[12] >= 0).sum(-1)
    assert counts[:20].float().mean() > counts[-20:].float().mean() + 1  # the undecided take more


@pytest.mark.parametrize("k", [1, 3, 8])
def test_p_of_one_is_top_k_also_for_tokens_that_are_sure(scores: torch.Tensor, k: int) -> None:
    scores[-1] = torch.nn.functional.one_hot(torch.tensor(2), 8)  # all mass on one expert
    assert torch.equal(top_p(scores, 1.0, k), scores.topk(k).indices)


def test_a_bias_reorders_and_the_mass_stays() -> None:
    scores, biased = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([[1, 0, 2]])
    assert mass_before(scores, biased).tolist() == [pytest.approx([0, 0.3, 0.9])]
    assert top_p(scores, 0.55, 3).tolist() == [[0, -1, -1]]
    assert within_mass(biased, mass_before(scores, biased), 0.55).tolist() == [[1, 0, -1]]  # 0.3 is not enough


@pytest.mark.parametrize("budget", [1.0, 1.01, 1.5, 2.25, 3.9, 4.0, 7.0])
def test_the_budget_is_kept_and_used_up(scores: torch.Tensor, budget: float) -> None:
    k_max = 4
    p = budget_p(mass_before(scores, scores.topk(k_max).indices), budget)
    taken = int((top_p(scores, p, k_max) >= 0).sum())
    assert taken <= budget * 60
    # scores differ from each other, so what is left is less than one pair
    assert taken == min(int(budget * 60), k_max * 60)


def test_equal_tokens_share_a_budget_that_does_not_reach_for_all() -> None:
    for shares in ([0.5, 0.3, 0.2], [1.0, 0.0, 0.0]):
        same = torch.tensor([shares]).expand(10, 3)
        p = budget_p(mass_before(same, same.topk(3).indices), 1.5)
        assert int((top_p(same, p, 3) >= 0).sum()) == 10


def test_leading_axes_change_nothing(scores: torch.Tensor) -> None:
    ranked = scores.topk(5).indices
    flat, before = within_mass(ranked, mass_before(scores, ranked), 0.7), mass_before(scores, ranked)
    deep = [tensor.unflatten(0, (3, 20)) for tensor in (scores, ranked)]
    assert torch.equal(within_mass(deep[1], mass_before(*deep), 0.7).flatten(0, 1), flat)
    assert budget_p(mass_before(*deep), 2.2) == budget_p(before, 2.2)


def test_a_budget_of_less_than_one_expert_is_refused(scores: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"a budget of 0\.9 experts a token"):
        budget_p(mass_before(scores, scores.topk(4).indices), 0.9)

from __future__ import annotations

import itertools

import pytest
import torch

from vlm.language.routing import budget_p, gates, pairs, top_p


@pytest.fixture
def scores() -> torch.Tensor:
    """Softmax scores from sure to undecided tokens."""
    torch.manual_seed(0)
    return (torch.randn(60, 8) * torch.linspace(0.2, 4, 60)[:, None]).softmax(1)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("k_max", [1, 3, 8])
def test_the_smallest_set_that_reaches_p(scores: torch.Tensor, p: float, k_max: int) -> None:
    mask = top_p(scores, p, k_max)
    for row, chosen in zip(scores.double().tolist(), mask, strict=True):
        best = sorted(range(8), key=lambda e: -row[e])
        count, mass = 1, row[best[0]] / sum(row)
        while mass < p and count < k_max:
            mass += row[best[count]] / sum(row)
            count += 1
        assert set(chosen.nonzero()[:, 0].tolist()) == set(best[:count])


def test_more_mass_never_drops_an_expert(scores: torch.Tensor) -> None:
    masks = [top_p(scores, p, 6) for p in torch.linspace(0, 1, 21).tolist()]
    assert all(bool((b | ~a).all()) for a, b in itertools.pairwise(masks))
    assert masks[0].sum(1).tolist() == [1] * 60
    counts = masks[12].sum(1)
    assert counts[:20].float().mean() > counts[-20:].float().mean() + 1  # the undecided take more


@pytest.mark.parametrize("k", [1, 3, 8])
def test_p_of_one_is_top_k_also_for_tokens_that_are_sure(scores: torch.Tensor, k: int) -> None:
    scores[-1] = torch.nn.functional.one_hot(torch.tensor(2), 8)  # all mass on one expert
    expected = torch.zeros(60, 8, dtype=torch.bool).scatter_(1, scores.topk(k).indices, True)
    assert torch.equal(top_p(scores, 1.0, k), expected)


def test_bias_reorders_and_the_mass_stays() -> None:
    scores = torch.tensor([[0.6, 0.3, 0.1]])
    assert top_p(scores, 0.55, 3).tolist() == [[True, False, False]]
    biased = top_p(scores, 0.55, 3, torch.tensor([0.0, 1.0, 0.0]))
    assert biased.tolist() == [[True, True, False]]  # 0.3 first, which is not enough


@pytest.mark.parametrize("budget", [1.0, 1.01, 1.5, 2.25, 3.9, 4.0, 7.0])
def test_the_budget_is_kept_and_used_up(scores: torch.Tensor, budget: float) -> None:
    k_max = 4
    p = budget_p(scores, budget, k_max)
    taken = int(top_p(scores, p, k_max).sum())
    assert taken <= budget * 60
    # scores differ from each other, so what is left is less than one pair
    assert taken == min(int(budget * 60), k_max * 60)


def test_equal_tokens_share_a_budget_that_does_not_reach_for_all() -> None:
    same = torch.tensor([[0.5, 0.3, 0.2]]).expand(10, 3)
    assert int(top_p(same, budget_p(same, 1.5, 3), 3).sum()) == 10
    sure = torch.tensor([[1.0, 0.0, 0.0]]).expand(10, 3)
    assert int(top_p(sure, budget_p(sure, 1.5, 3), 3).sum()) == 10


def test_gates_are_the_scores_of_the_chosen(scores: torch.Tensor) -> None:
    mask = top_p(scores, 0.7, 4)
    assert torch.equal(gates(scores, mask, normalise=False), scores.masked_fill(~mask, 0))
    normal = gates(scores, mask)
    torch.testing.assert_close(normal.sum(1), torch.ones(60))
    assert bool((normal.bool() == mask).all())


def test_pairs_come_sorted_by_expert(scores: torch.Tensor) -> None:
    mask = top_p(scores, 0.7, 4)
    tokens, experts, rows = pairs(mask)
    expected = [(e, t) for e in range(8) for t in range(60) if mask[t, e]]
    assert list(zip(experts.tolist(), tokens.tolist(), strict=True)) == expected
    assert rows.tolist() == [experts.tolist().count(e) for e in range(8)]


def test_gradients_reach_the_scores() -> None:
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    mask = top_p(logits.softmax(1), 0.6, 4)
    assert torch.autograd.gradcheck(lambda x: gates(x.softmax(1), mask), logits)


def test_impossible_wishes_are_refused(scores: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"a budget of 0\.9 experts a token"):
        budget_p(scores, 0.9, 4)
    with pytest.raises(ValueError, match="k_max 9 with 8 experts"):
        top_p(scores, 0.5, 9)

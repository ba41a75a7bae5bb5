"""The plan of the products: every routed row has one place, and padding stays small."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.language.mixture import dispatch
from vlm.language.mixture.dispatch import Dispatch, parts_of

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=24)


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(1, 24), st.sampled_from([1, 16]))
def test_blocks_hold_every_called_expert_once_with_room_for_its_rows(counts: list[int], size: int, tile: int) -> None:
    parts = parts_of(counts, size, tile)
    blocks = [block for blocks, _ in parts for block in blocks]
    held = [expert for block in blocks for expert in block.experts]
    assert held == [expert for expert, count in enumerate(counts) if count]
    for block in blocks:
        most = max(counts[expert] for expert in block.experts)
        assert len(block.experts) <= size
        assert block.each == (most if most == 1 else -(-most // tile) * tile)
        padding = most * len(block.experts) - sum(counts[expert] for expert in block.experts)
        assert padding <= sum(counts[expert] for expert in block.experts) // 2 + 8 * len(block.experts)
    for blocks, rows in parts:
        assert [block.start for block in blocks] == [
            sum(len(b.experts) * b.each for b in blocks[:n]) for n in range(len(blocks))
        ]
        assert rows == sum(len(block.experts) * block.each for block in blocks)
        assert rows <= dispatch.PART_ROWS or len(blocks) == 1


def test_an_expert_with_many_rows_is_not_what_others_are_padded_to() -> None:
    [(blocks, _)] = parts_of([3, 2, 400, 3, 1], size=8)
    assert [(list(block.experts), block.each) for block in blocks] == [([0, 1], 3), ([2], 400), ([3, 4], 3)]


def test_experts_at_equal_distances_are_one_block() -> None:
    [(blocks, _)] = parts_of([1, 0, 0, 1, 0, 0, 1, 1], size=8)
    assert [list(block.experts) for block in blocks] == [[0, 3, 6], [7]]


@pytest.mark.parametrize("part_rows", [4, 16, 512])
@pytest.mark.parametrize(("tokens", "experts", "k"), [(1, 5, 2), (7, 4, 4), (40, 9, 2), (60, 64, 6), (0, 4, 2)])
def test_rows_belong_to_their_token_gate_and_expert(
    part_rows: int, tokens: int, experts: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "PART_ROWS", part_rows)
    torch.manual_seed(tokens)
    chosen = torch.rand(tokens, experts).pow(3).argsort(descending=True)[:, :k]
    gates = torch.rand(tokens, k) + 0.1
    plan = Dispatch(gates, chosen, experts)
    assert plan.idle == [e for e in range(experts) if not (chosen == e).any()]
    found = []
    for part in plan.parts:
        token_of, gate_of = part.tokens_P[:, None], part.gates_P[:, None]
        for block in part.blocks:
            for expert, token, gate in zip(block.experts, block.of(token_of), block.of(gate_of), strict=True):
                found += [(int(t), expert, float(g)) for t, g in zip(token.flatten(), gate.flatten(), strict=True) if g]
    pairs = [(t, int(e), float(g)) for t in range(tokens) for e, g in zip(chosen[t], gates[t], strict=True)]
    assert sorted(found) == sorted(pairs)
    rows = torch.cat([part.gates_P for part in plan.parts]) if tokens else torch.empty(0)
    assert torch.equal(rows[plan.row_Tk], gates)

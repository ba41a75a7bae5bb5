from __future__ import annotations

import pytest
import torch

from vlm.projector import ProjectorConfig, unshuffle


def test_each_visual_token_holds_one_square_of_neighbours() -> None:
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    places = torch.stack([rows, columns], dim=-1).flatten(0, 1)[None]  # a patch's content is where it stands
    tokens = unshuffle(places, 2)
    assert tokens.shape == (1, 9, 8)
    for number, token in enumerate(tokens[0].unflatten(-1, (4, 2)).tolist()):
        top, left = 2 * (number // 3), 2 * (number % 3)
        assert token == [[top, left], [top, left + 1], [top + 1, left], [top + 1, left + 1]]


def test_factor_one_changes_nothing() -> None:
    tokens = torch.randn(2, 16, 3)
    assert torch.equal(unshuffle(tokens, 1), tokens)


@pytest.mark.parametrize(("patches", "factor"), [(15, 2), (9, 2), (16, 3)])
def test_grids_that_cannot_be_cut_are_refused(patches: int, factor: int) -> None:
    with pytest.raises(ValueError, match=f"got {patches} patches"):
        unshuffle(torch.randn(1, patches, 3), factor)


def test_counts_and_shapes_agree() -> None:
    cfg = ProjectorConfig(factor=4, hidden=10)
    assert cfg.tokens(16) == 16
    assert cfg.build(tower_width=6, language_width=9)(torch.randn(2, 256, 6)).shape == (2, 16, 9)
    with pytest.raises(ValueError, match="factor 4 does not divide the tower's grid of 10"):
        cfg.tokens(10)

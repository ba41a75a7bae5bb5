from __future__ import annotations

import pytest
import torch

from vlm.projector import DownsampleConfig, MLPConfig, PixelShuffleLinearConfig, PixelShuffleMLPConfig
from vlm.projector.pixel_shuffle import unshuffle


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
    cfg = PixelShuffleMLPConfig(factor=4, hidden=10)
    assert cfg.tokens(16) == 16
    assert cfg.build(tower_width=6, language_width=9)(torch.randn(2, 256, 6)).shape == (2, 16, 9)
    with pytest.raises(ValueError, match="factor 4 does not divide the tower's grid of 10"):
        cfg.tokens(10)


def test_downsampling_fills_an_odd_grid_with_zeros_and_keeps_channels_together() -> None:
    cfg = DownsampleConfig(factor=2)
    module = cfg.build(tower_width=3, language_width=4)
    assert cfg.tokens(27) == 196
    grid = torch.randn(2, 5, 5, 3)
    seen: list[torch.Tensor] = []
    module.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert module(grid.flatten(1, 2)).shape == (2, cfg.tokens(5), 4)
    filled = torch.zeros(2, 6, 6, 3)
    filled[:, :5, :5] = grid
    for number, square in enumerate(seen[0].unbind(1)):
        top, left = 2 * (number // 3), 2 * (number % 3)
        for channel in range(3):
            expected = filled[:, top : top + 2, left : left + 2, channel].flatten(1)
            assert torch.equal(square[:, 4 * channel : 4 * channel + 4], expected)


@pytest.mark.parametrize(("depth", "widths"), [(1, [12, 8, 4]), (2, [12, 8, 4]), (4, [12, 8, 8, 8, 4])])
def test_the_hidden_layers_of_downsampling(depth: int, widths: list[int]) -> None:
    module = DownsampleConfig(factor=2, depth=depth, ratio=2).build(tower_width=3, language_width=4)
    linear = [layer for layer in module.mlp if isinstance(layer, torch.nn.Linear)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths


def test_each_kind_gives_as_many_tokens_as_it_says() -> None:
    kinds = [
        MLPConfig(depth=1), MLPConfig(depth=3), DownsampleConfig(factor=3), PixelShuffleMLPConfig(factor=2, hidden=7),
        PixelShuffleLinearConfig(factor=2),
    ]  # fmt: skip
    for cfg in kinds:
        assert cfg.build(6, 9)(torch.randn(2, 64, 6)).shape == (2, cfg.tokens(8), 9)

"""Grids at native aspect ratios are those of timm and transformers, and padding changes no token."""

from __future__ import annotations

from pathlib import Path

import folders
import pytest
import torch
from folders import NAFLEX
from PIL import Image
from timm.data.naflex_transforms import get_image_size_for_seq
from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

from vlm.vision.native_resolution import Patches, patch_shape
from vlm.vision.towers import load


@pytest.mark.parametrize("budget", [1, 7, 64, 256, 1024])
@pytest.mark.parametrize("patch", [14, 16])
def test_grids_are_those_of_timm_and_transformers(budget: int, patch: int) -> None:
    for height, width in [(480, 640), (1, 1), (3, 5000), (17, 16), (1080, 1920), (224, 224), (4000, 31)]:
        grid = patch_shape(height, width, patch, budget)
        size = (grid[0] * patch, grid[1] * patch)
        assert size == get_image_size_for_max_num_patches(height, width, patch, budget)
        if min(height, width) > 1:  # timm refuses to enlarge a hundred times
            assert size == get_image_size_for_seq((height, width), patch, budget)[1]


def test_a_grid_fills_its_budget_and_keeps_the_shape() -> None:
    for width in range(100, 1000, 83):
        rows, columns = patch_shape(400, width, 16, 256)
        assert 200 < rows * columns <= 256
        assert columns / rows == pytest.approx(width / 400, rel=0.15)


@torch.no_grad()
def test_a_batch_gives_what_each_picture_gives_alone(tmp_path: Path) -> None:
    name, options = NAFLEX
    folders.save_timm(tmp_path, name, options)
    tower = load(tmp_path, budget=20)
    together = tower.preprocess(folders.photographs())
    tokens, pooled = tower(together)
    for number, image in enumerate(folders.photographs()):
        alone = tower.preprocess([image])
        (grid,) = tower.grids(alone)
        assert grid == tower.grids(together)[number]
        one, one_pooled = tower(alone)
        torch.testing.assert_close(one[0], tokens[number, : grid[0] * grid[1]], rtol=0, atol=1e-4)
        torch.testing.assert_close(one_pooled[0], pooled[number], rtol=0, atol=1e-4)


def test_patches_know_where_they_are() -> None:
    patches = Patches(torch.zeros(2, 7, 3), ((2, 3), (1, 2)))
    assert patches.valid_BN.sum(1).tolist() == [6, 2]
    assert patches.coordinates_BN2[0, :6].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert patches.coordinates_BN2[1, :3].tolist() == [[0, 0], [0, 1], [0, 0]]
    assert patches.bfloat16().patches_BNP.dtype == torch.bfloat16


def test_a_pixel_is_a_picture(tmp_path: Path) -> None:
    name, options = NAFLEX
    folders.save_timm(tmp_path, name, options)
    tower = load(tmp_path, budget=20)
    pixels = tower.preprocess([Image.new("L", (1, 1)), Image.new("RGBA", (1, 900))])
    assert tower.grids(pixels) == ((4, 4), (20, 1))

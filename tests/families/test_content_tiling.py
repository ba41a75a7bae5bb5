"""Tiling by content in the processors of tiles: what they promise is what the model gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_smolvlm as smolvlm
import random_vl2 as vl2
import torch
from PIL import Image

import vlm
from vlm.errors import BadInput
from vlm.vision.content_tiling import TilingConfig

CONTENT = TilingConfig(by="content")


@pytest.fixture(scope="module", params=["deepseek_vl2", "smolvlm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    (vl2 if request.param == "deepseek_vl2" else smolvlm).write_folder(folder)
    return folder


def flat(width: int = 200, height: int = 180) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 30, 30))


def noise(width: int = 200, height: int = 180) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def asked(model: Any, pictures: list[Image.Image]) -> Any:
    messages = [{"role": "user", "content": "<image>" * len(pictures) + "What?"}]
    return model.processor(messages, pictures)


def of_content(folder: Path, **settings: Any) -> Any:
    return vlm.load(folder, tiling=TilingConfig(by="content", **settings))


def test_flat_pictures_get_fewer_tiles_than_noise(folder: Path) -> None:
    model, plain = of_content(folder), vlm.load(folder)
    for pictures in ([flat()], [noise()], [flat(), noise(), flat(60, 150)]):
        inputs = asked(model, pictures)
        tokens = [model.processor.visual_tokens(grid) for grid in inputs.grids.tolist()]
        assert int((inputs.input_ids == model.processor.image_token).sum()) == sum(tokens)
        assert torch.isfinite(model.logits(*inputs)).all()
    few, many, few_again = tokens
    assert few == few_again < many
    assert inputs.grids[0].tolist() in ([1, 1], [0, 0])
    by_size = asked(plain, [noise()])
    alone = asked(model, [noise()])
    assert torch.equal(alone.grids, by_size.grids), "all detail is worth as many tiles as its size is"
    assert torch.equal(alone.pixels, by_size.pixels)


def test_the_budget_is_kept_by_all_pictures_together(folder: Path) -> None:
    pictures = [noise(), flat(), noise(90, 200)]
    model = of_content(folder)
    least = sum(model.processor.visual_tokens(grid) for grid in asked(model, [flat()] * 3).grids.tolist())
    for budget in range(least, least * 6, least // 2):
        model = of_content(folder, budget=budget)
        inputs = asked(model, pictures)
        assert int((inputs.input_ids == model.processor.image_token).sum()) <= budget
        turned = asked(model, pictures[::-1])
        assert torch.equal(turned.grids.flip(0), inputs.grids)
    with pytest.raises(BadInput, match=f"expected a budget of at least {least} visual tokens for 3 pictures"):
        asked(of_content(folder, budget=least - 1), pictures)


def test_a_folder_may_say_it_and_by_default_nothing_changes(folder: Path, tmp_path: Path) -> None:
    assert vlm.load(folder).processor.tiling == TilingConfig()
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    where = tmp_path / "processor_config.json"
    saying = json.loads(where.read_text()) if where.is_file() else {}
    where.write_text(json.dumps({**saying, "tiling": {"by": "content", "budget": 2000}}))
    assert vlm.load(tmp_path).processor.tiling == TilingConfig(by="content", budget=2000)
    where.write_text(json.dumps({**saying, "tiling": {"by": "contents"}}))
    with pytest.raises(BadInput, match=r"key tiling\.by"):
        vlm.load(tmp_path)


def test_a_card_has_no_tiles() -> None:
    with pytest.raises(BadInput, match="model nano: its pictures are not tiled by content"):
        vlm.load("nano", tiling=CONTENT, offline=True)

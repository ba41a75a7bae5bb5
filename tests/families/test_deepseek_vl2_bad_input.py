"""DeepSeek-VL2 folders and inputs that cannot be used: one line that says what, where and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import random_vl2 as vl2
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vlm
from vlm.errors import BadInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vl2.write_folder(tmp_path / "vl2")
    return tmp_path / "vl2"


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        vlm.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_that_do_not_fit(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")

    def tried(**changes: torch.Tensor | None) -> str:
        state = whole | {name.replace("__", "."): tensor for name, tensor in changes.items()}
        save_file({name: t for name, t in state.items() if t is not None}, folder / "model.safetensors")
        return refused(folder)

    assert "1 missing: vision.blocks.1.mlp.fc1.bias [55]" in tried(vision__blocks__1__mlp__fc1__bias=None)
    assert "1 missing: view_seperator [32]" in tried(view_seperator=None)
    assert "1 unknown: vision.cls_token [1, 1, 24]" in tried(vision__cls_token=torch.zeros(1, 1, 24))
    assert "1 unknown: other [2]" in tried(other=torch.zeros(2))
    assert "projector.layers.0.weight expected [32, 96], got [32, 24]" in tried(
        projector__layers__0__weight=torch.zeros(32, 24)
    )
    assert "1 missing: language.model.norm.weight [32]" in tried(language__model__norm__weight=None)
    assert "1 unknown: language.model.x [3]" in tried(language__model__x=torch.zeros(3))
    assert "language.lm_head.weight expected [320, 32], got [9, 32]" in tried(
        language__lm_head__weight=torch.zeros(9, 32)
    )


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config", {"model_type": "deepseek_vl"}, "unknown model family 'deepseek_vl'"),
        ("config", {"tile_tag": "1D"}, "key tile_tag"),
        ("config", {"vision_config": vl2.VISION | {"class_token": True}}, "key vision_config.class_token"),
        ("config", {"vision_config": vl2.VISION | {"global_pool": "avg"}}, "key vision_config.global_pool"),
        ("config", {"vision_config": vl2.VISION | {"heads": 5}}, "width 24 is not a multiple of heads 5"),
        ("config", {"projector_config": {"projector_type": "identity"}}, "key projector_config.projector_type"),
        ("config", {"projector_config": {"n_embed": 32}}, "key projector_config.input_dim: expected 24, got 1152"),
        ("config", {"projector_config": {"input_dim": 24}}, "key projector_config.n_embed: expected 32, got 2048"),
        ("config", {"language_config": vl2.LANGUAGE | {"topk_method": "best"}}, "key topk_method"),
        ("config", {"language_config": None}, "key language_config"),
        ("processor_config", {"sft_format": "plain"}, "key sft_format"),
        ("processor_config", {"candidate_resolutions": []}, "expected at least one"),
        ("processor_config", {"candidate_resolutions": [[56, 80]]}, "not a multiple of the tile of 56"),
        ("processor_config", {"candidate_resolutions": [[112, 112]]}, "tiles of 112 pixels, but image_size is 56"),
        ("processor_config", {"downsample_ratio": 1}, "25 image slots a tile, but the projector"),
        ("tokenizer_config", {"eos_token": "<none>"}, "tokenizer has no token '<none>'"),
    ],
)
def test_configs_that_cannot_be_followed(folder: Path, file: str, change: dict[str, Any], words: str) -> None:
    path = folder / f"{file}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert words in refused(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_that_are_missing_or_broken(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"{")
    assert file in refused(folder)
    (folder / file).unlink()
    assert (file if file != "model.safetensors" else "no safetensors files") in refused(folder)


def test_messages_and_pictures_that_do_not_fit(folder: Path) -> None:
    processor = vlm.load(folder).processor
    for messages, pictures, words in [
        (ask("<image>"), 0, "expected places for 0 pictures and clips, got 1"),
        (ask("<image>"), 2, "expected places for 2 pictures and clips, got 1"),
        (ask("none"), 1, "expected places for 1 pictures and clips, got 0"),
        ([{"role": "assistant", "content": "<image>"}], 1, "message 1: expected pictures in messages of the user only"),
        ([*ask("a"), {"role": "system", "content": "b"}], 0, "message 2: expected role user or assistant"),
        ([{"role": "tool", "content": "b"}], 0, "got 'tool'"),
        ([{"role": "user", "content": ["b"]}], 0, "message 1: expected a text or a list of parts as content, got list"),
    ]:
        with pytest.raises(BadInput) as caught:
            processor(messages, [Image.new("RGB", (50, 50))] * pictures)
        assert words in str(caught.value)


def test_inputs_of_logits_that_do_not_fit(folder: Path) -> None:
    model = vlm.load(folder)
    ids, pixels, grids = model.processor(ask("<image>"), [Image.new("RGB", (150, 50))])
    image = model.processor.image_token
    slots = int((ids == image).sum())
    for arguments, words in [
        ((ids, None, None), f"expected 0 image slots for 0 pictures, got {slots}"),
        ((ids[:, :-9], pixels, grids), f"expected {slots} image slots for 1 pictures"),
        ((ids, pixels, None), "pixels and grids: expected both or neither"),
        ((ids, pixels, [[1, 1]]), "pixels: expected 2 tiles for 1 grids, got 4"),
        ((ids, pixels[:, :, :50], grids), "pixels: expected [tiles, 3, 56, 56], got [4, 3, 50, 56]"),
        ((ids, pixels, [[1, 1, 1]]), "grids: expected [pictures, 2]"),
        ((ids[0], pixels, grids), "input_ids: expected [B, T]"),
        ((ids + 1000, pixels, grids), "input_ids: expected ids of 0 to 319"),
        ((ids, pixels[0], grids), "pixels: expected [tiles, 3, H, W]"),
    ]:
        with pytest.raises(BadInput) as caught:
            model.logits(*arguments)
        assert words in str(caught.value)
    with pytest.raises(BadInput, match="mask: expected"):
        model.logits(ids, pixels, grids, mask=[[1]])

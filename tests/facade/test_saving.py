"""A saved folder is the model again: for `vlm.load`, and of published families for transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

import vlm
from vlm.alignment.dual_encoder import AlignmentConfig
from vlm.cli import main
from vlm.errors import BadInput
from vlm.models.space import add_space

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
SAID = [{"role": "user", "content": "<image>What is it?"}]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))


@torch.no_grad()
def shaken(model: vlm.api.Model) -> vlm.api.Model:
    """Other weights than the folder's: what is saved must come from the model."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parts.model.parameters():
        parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
@pytest.mark.parametrize("kind", ["SmolVLM", "LLaVA-OneVision"])
def test_transformers_gives_the_same_logits(kind: str, tmp_path: Path) -> None:
    model = shaken(kinds.load(kind, tmp_path / "model"))
    model.save(tmp_path / "saved")
    theirs, report = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "saved", attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids, pixels, grids = model.processor(SAID, [PICTURE])
    ours = model.logits(ids, pixels, grids)
    seen: dict[str, Any] = {"pixel_values": pixels[None]}
    if kind == "LLaVA-OneVision":
        seen["image_sizes"] = torch.tensor([[PICTURE.height, PICTURE.width]])
    torch.testing.assert_close(theirs(input_ids=ids, **seen).logits, ours, rtol=1e-4, atol=1e-4)
    again = vlm.load(tmp_path / "saved")
    assert torch.equal(again.logits(ids, pixels, grids), ours)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["DeepSeek-VL2", "a card", "SmolVLM", "LLaVA-OneVision"])
def test_it_is_read_back_to_the_same_tokens(kind: str, tmp_path: Path) -> None:
    model = shaken(kinds.load(kind, tmp_path / "model"))
    model.save(tmp_path / "saved", shard_size="40KB")
    assert (tmp_path / "saved" / "model.safetensors.index.json").is_file(), "sharded above the size"
    again = vlm.load(tmp_path / "saved")
    inputs, other = (m.processor(SAID, [PICTURE]) for m in (model, again))
    assert torch.equal(inputs.input_ids, other.input_ids)
    assert torch.equal(inputs.pixels, other.pixels)
    assert torch.equal(again.logits(*inputs), model.logits(*inputs))
    assert again.caption([PICTURE], max_tokens=8) == model.caption([PICTURE], max_tokens=8)
    assert again.weights_hash() == model.weights_hash()
    again.save(tmp_path / "twice")
    assert vlm.load(tmp_path / "twice").weights_hash() == model.weights_hash()
    if kind == "a card":
        assert again.name == model.name
        np.testing.assert_array_equal(again.embed_texts(["a cat"]), model.embed_texts(["a cat"]))
        np.testing.assert_array_equal(again.embed_images([PICTURE]), model.embed_images([PICTURE]))
        assert main(["embed", "--text", "a", "--model", str(tmp_path / "saved"), "--offline"]) == 0


@torch.no_grad()
def test_a_language_model_alone(tmp_path: Path) -> None:
    model = shaken(kinds.load("a language model", tmp_path / "model"))
    model.save(tmp_path / "saved")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", attn_implementation="eager")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(theirs(ids).logits, model.logits(ids), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_said_in_the_config(tmp_path: Path) -> None:
    kinds.write("SmolVLM", tmp_path / "model")
    vlm.load(tmp_path / "model", dtype="bfloat16").save(tmp_path / "saved")
    assert {t.dtype for t in load_file(tmp_path / "saved" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "bfloat16"


def test_only_what_vectors_need_is_loaded(tmp_path: Path) -> None:
    """Of a card with a text side of its own, in a card or in a saved folder; the others load whole."""
    model = kinds.load("a card", tmp_path / "model")
    folder = model.save(tmp_path / "saved")
    assert vlm.load(folder, only=("texts",)).writer is not None, "its texts are read by the language model"
    for place in (folder, "nano"):
        with pytest.raises(BadInput, match="only: expected texts, images or both, got sounds"):
            vlm.load(place, only=("sounds",), offline=True)


@pytest.mark.weights
def test_a_text_search_loads_the_text_side_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_CACHE")  # the published parts are in the user's own
    whole = vlm.load("nano")
    folder = whole.save(tmp_path / "saved")
    for place in ("nano", folder):
        texts, images = vlm.load(place, only=("texts",)), vlm.load(place, only=("images",))
        assert texts.writer is None
        np.testing.assert_array_equal(texts.embed_texts(["a cat", "a bear"]), whole.embed_texts(["a cat", "a bear"]))
        np.testing.assert_array_equal(images.embed_images([PICTURE]), whole.embed_images([PICTURE]))
        with pytest.raises(BadInput, match="only the texts' side of this model is loaded"):
            texts.embed_images([PICTURE])
        with pytest.raises(BadInput, match="loaded for vectors of texts alone: it cannot caption"):
            texts.caption([PICTURE])
    assert vlm.load(folder).caption([PICTURE]) == whole.caption([PICTURE])


def test_a_published_model_with_a_space_keeps_it(tmp_path: Path) -> None:
    model = kinds.load("SmolVLM", tmp_path / "model")
    with pytest.raises(BadInput, match="has no space"):
        model.embed_texts(["a"])
    cfg = AlignmentConfig(width=8, text="language", image_queries=1, text_queries=1, hidden=8)
    torch.manual_seed(0)
    add_space(model.parts, cfg)
    model.save(tmp_path / "saved")
    again = vlm.load(tmp_path / "saved")
    assert again.embed_images([PICTURE]).shape == (1, 8)
    assert again.embed_texts(["a cat"]).shape == (1, 8)
    again.save(tmp_path / "twice")
    np.testing.assert_array_equal(vlm.load(tmp_path / "twice").embed_texts(["b"]), again.embed_texts(["b"]))


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    model = kinds.load("SmolVLM", tmp_path / "model")
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for place, words in [("file", "got a file"), ("full", "got one with other files"), ("model", "another folder")]:
        with pytest.raises(BadInput, match=words):
            model.save(tmp_path / place)
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_broken_folders_of_a_card_are_one_line(tmp_path: Path) -> None:
    kinds.load("a card", tmp_path / "model").save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config | {"surprise": 1}))
    with pytest.raises(BadInput, match="key surprise"):
        vlm.load(tmp_path / "saved")
    config["model"]["language"]["layers"] += 1
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="missing"):
        vlm.load(tmp_path / "saved")

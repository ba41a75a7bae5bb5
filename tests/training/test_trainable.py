"""Any model that loads can be trained: what the recipe names learns, nothing else, and the result can be saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

import vlm
from vlm.cli import main
from vlm.errors import BadInput
from vlm.training.loop import train
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage
from vlm.training.trainable import matches, set_trainable

sys.path.insert(0, str(Path(__file__).parents[1] / "facade"))
import kinds

SAID = [{"role": "user", "content": "<image>What is it?"}]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
PATTERNS = {
    "SmolVLM": ("projector", "language.layers.1.attention", "language.layers.*.ffn_norm"),
    "DeepSeek-VL2": ("projector", "arrangement", "language.layers.1.ffn.routed", "language.layers.*.ffn.router"),
    "LLaVA-OneVision": ("projector", "tower.vit.blocks.0"),
    "a card of tiles": ("projector", "language.norm"),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))


def recipe(model: str, place: Path, **changes: Any) -> Recipe:
    squares = tiny.write_data(place / "data", pictures=8)
    captions = {"dataset": str(squares), "use": "captions", "share": 0.5, "branches": 2}
    asked = {"dataset": str(place / "data" / "squares-vqa.yaml"), "use": "questions", "share": 0.5, "branches": 1}
    data = {
        "model": model, "data": str(place / "data"), "output": str(place / "run"), "steps": 1, "batch": 4,
        "objective": {"kind": "instruct", "sources": [captions, asked], "sampled_words": 0},
        "optimizer": {"lr": 0.05}, "device": "cpu",
    }  # fmt: skip
    return Recipe.model_validate({**data, **changes})


def folder_of(kind: str, place: Path) -> str:
    if kind != "a card of tiles":
        return kinds.write(kind, place / "model")
    path = Path(kinds.write("a card", place / "model"))
    path.write_text(path.read_text().replace("model:\n", "model:\n  tiles: {most: 4}\n", 1))
    return str(path)


@pytest.mark.parametrize("kind", PATTERNS)
def test_one_step_trains_exactly_what_the_recipe_names(kind: str, tmp_path: Path) -> None:
    made = recipe(folder_of(kind, tmp_path), tmp_path, learns=PATTERNS[kind])
    said: list[str] = []
    stage = build_stage(made, said.append, offline=True)
    before = {name: p.detach().clone() for name, p in stage.task.model.named_parameters()}  # type: ignore[attr-defined]
    figures = train(made, stage, tmp_path / "run")
    assert np.isfinite(figures["loss"])
    changed = {
        name
        for name, p in stage.task.model.named_parameters()  # type: ignore[attr-defined]
        if not torch.equal(before[name], p)
    }
    named = {name for name in before if any(matches(name, pattern) for pattern in PATTERNS[kind])}
    assert changed == named
    assert set(stage.task.trainable()) == named
    for pattern in PATTERNS[kind]:
        own = [p for name, p in before.items() if matches(name, pattern)]
        row = next(line for line in said if line.split()[:1] == [pattern])
        assert f"{len(own)} tensors" in row
        assert f"{sum(p.numel() for p in own):,} parameters" in row
    assert any("the rest is frozen" in line for line in said)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["SmolVLM", "DeepSeek-VL2"])
def test_what_was_trained_is_saved_and_gives_the_same_logits(kind: str, tmp_path: Path) -> None:
    """Here, and of a family that transformers has there too."""
    name = folder_of(kind, tmp_path)
    made = recipe(name, tmp_path, learns=PATTERNS[kind])
    with torch.enable_grad():
        stage = build_stage(made, lambda line: None, offline=True)
        train(made, stage, tmp_path / "run")
    trained = stage.task.model.eval()  # type: ignore[attr-defined]
    assert main(["export", str(tmp_path / "run"), "--model", name, "--to", str(tmp_path / "out"), "--offline"]) == 0
    again, first = vlm.load(tmp_path / "out"), vlm.load(name)
    ids, pixels, grids = again.processor(SAID, [PICTURE])
    logits = again.logits(ids, pixels, grids)
    torch.testing.assert_close(logits, trained(ids, pixels, grids), rtol=1e-5, atol=1e-5)
    assert (logits - first.logits(ids, pixels, grids)).abs().max() > 1e-3
    if kind == "SmolVLM":
        theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", attn_implementation="eager")
        torch.testing.assert_close(
            theirs(input_ids=ids, pixel_values=pixels[None]).logits, logits, rtol=1e-4, atol=1e-4
        )


def test_lora_on_a_published_model_is_merged_when_it_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    name = folder_of("SmolVLM", tmp_path)
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}
    made = recipe(name, tmp_path, learns=("*.lora_*",), steps=3)
    adapted = made.objective.model_validate({**made.objective.model_dump(), "lora": lora})
    made = made.model_copy(update={"objective": adapted})
    stage = build_stage(made, lambda line: None, offline=True)
    train(made, stage, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--model", name, "--to", str(tmp_path / "out"), "--offline"]) == 0
    again = vlm.load(tmp_path / "out")
    ids, pixels, grids = again.processor(SAID, [PICTURE])
    with torch.no_grad():
        expected = stage.task.model.eval()(ids, pixels, grids)  # type: ignore[attr-defined]
    torch.testing.assert_close(again.logits(ids, pixels, grids), expected, rtol=1e-4, atol=1e-4)


def test_a_contrastive_stage_gives_a_published_model_a_space(tmp_path: Path) -> None:
    squares = tiny.write_data(tmp_path / "data", pictures=12)
    space = {"width": 8, "text": "language", "image_queries": 1, "text_queries": 1, "hidden": 8}
    made = Recipe.model_validate(
        {
            "model": folder_of("SmolVLM", tmp_path), "data": str(tmp_path / "data"), "output": str(tmp_path / "run"),
            "objective": {"kind": "contrastive", "dataset": str(squares), "captions": 1, "space": space},
            "steps": 2, "batch": 4, "optimizer": {"lr": 0.01}, "device": "cpu",
        }
    )  # fmt: skip
    stage = build_stage(made, lambda line: None, offline=True)
    figures = train(made, stage, tmp_path / "run")
    assert np.isfinite(figures["loss"])
    assert all(name.startswith("alignment.") for name in stage.task.trainable())
    out = str(tmp_path / "out")
    assert main(["export", str(tmp_path / "run"), "--model", made.model, "--to", out, "--offline"]) == 0  # type: ignore[list-item]
    again = vlm.load(out)
    assert again.embed_texts(["a red square"]).shape == (1, 8)
    for name, parameter in stage.task.heads.named_parameters():  # type: ignore[attr-defined]
        assert torch.equal(dict(again.model.alignment.named_parameters())[name], parameter), name  # type: ignore[union-attr]
    assert main(["embed", "--text", "a", "--model", out, "--offline"]) == 0


def test_patterns() -> None:
    model = torch.nn.ModuleDict({"projector": torch.nn.Linear(2, 2), "tower": torch.nn.Linear(2, 2)})
    named = dict(model.named_parameters())
    (row,) = set_trainable(named, ["projector"])
    assert (row.tensors, row.parameters) == (2, 6)
    assert [p.requires_grad for p in named.values()] == [True, True, False, False]
    set_trainable(named, ["*.bias"])
    assert [name for name, p in named.items() if p.requires_grad] == ["projector.bias", "tower.bias"]
    with pytest.raises(BadInput, match=r"unknown pattern of parameters 'projectr'; did you mean 'projector'\?"):
        set_trainable(named, ["projectr"])
    with pytest.raises(BadInput, match="expected some parameters that learn, got none"):
        set_trainable(named, ["*.lora_*"], optional=["*.lora_*"])
    assert matches("language.layers.3.attention.q_proj.weight", "language.layers.*.attention")
    assert not matches("language.layers.3.ffn.up.weight", "language.layers.*.attention")

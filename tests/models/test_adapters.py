"""Adapters: what a stage trained is a folder that peft puts on transformers' own class, and one of peft's is read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

import vlm
from vlm.cli import main
from vlm.errors import BadInput
from vlm.models.adapters import WEIGHTS
from vlm.training.loop import train
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage

sys.path.insert(0, str(Path(__file__).parents[1] / "facade"))
import kinds

peft = pytest.importorskip("peft")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
SAID = [{"role": "user", "content": "<image>What is it?"}]
TARGETS = {"DeepSeek-VL2": ["q_proj", "kv_down", "o_proj"]}
USUAL = ["q_proj", "v_proj", "o_proj"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))


def trained(kind: str, place: Path, **changes: Any) -> tuple[str, Path]:
    """A model, and a run of a few steps on it that trained adapters and the projector."""
    model = kinds.write(kind, place / "model")
    squares = tiny.write_data(place / "data", pictures=8)
    data = {
        "model": model, "data": str(place / "data"), "output": str(place / "run"), "steps": 3, "batch": 4,
        "objective": {
            "kind": "instruct", "sources": [{"dataset": str(squares), "use": "captions", "branches": 2}],
            "sampled_words": 0, "lora": {"rank": 4, "alpha": 12, "targets": TARGETS.get(kind, USUAL)},
        },
        "learns": ["projector", "*.lora_*"], "optimizer": {"lr": 0.05}, "device": "cpu",
    }  # fmt: skip
    recipe = Recipe.model_validate({**data, **changes})
    train(recipe, build_stage(recipe, lambda line: None, offline=True), place / "run")
    return model, place / "run"


def exported(model: str, run: Path, to: Path) -> Path:
    assert main(["export", str(run), "--model", model, "--adapter", "--to", str(to)]) == 0
    return to


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_peft_puts_it_on_transformers_own_smolvlm(tmp_path: Path) -> None:
    model, run = trained("SmolVLM", tmp_path)
    folder = exported(model, run, tmp_path / "adapter")
    found, base = vlm.load(folder, offline=True), vlm.load(model, offline=True)
    assert found.name == "adapter"
    ids, pixels, grids = found.processor(SAID, [PICTURE])
    theirs = AutoModelForImageTextToText.from_pretrained(model, attn_implementation="eager")
    adapted = peft.PeftModel.from_pretrained(theirs, folder).eval().requires_grad_(False)
    expected = adapted(input_ids=ids, pixel_values=pixels[None]).logits
    close(found.logits(ids, pixels, grids), expected)
    assert (base.logits(ids, pixels, grids) - expected).abs().max() > 1e-3, "it changes what the model says"


def test_peft_puts_it_on_transformers_own_llava_onevision(tmp_path: Path) -> None:
    """Whose folder has other names than its class. Words alone; what is trained whole is compared as it is."""
    model, run = trained("LLaVA-OneVision", tmp_path)
    folder = exported(model, run, tmp_path / "adapter")
    found = vlm.load(folder, offline=True)
    theirs = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(theirs, folder).eval().requires_grad_(False)
    ids = found.processor([{"role": "user", "content": "Hello"}]).input_ids
    close(found.logits(ids), adapted(input_ids=ids).logits)
    whole = sorted(n for n, _ in adapted.named_parameters() if "modules_to_save" in n)
    ours = [parameter for name, parameter in found.model.named_parameters() if name.startswith("projector.")]
    theirs_now = [parameter for name, parameter in adapted.named_parameters() if name in whole]
    assert len(ours) == len(whole) == 4
    assert all(any(torch.equal(one, other) for other in theirs_now) for one in ours)


def test_peft_puts_it_on_a_language_model(tmp_path: Path) -> None:
    model = kinds.write("a language model", tmp_path / "model")
    lines = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]}] * 4
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = Recipe.model_validate({
        "model": model, "output": str(tmp_path / "run"), "steps": 3, "batch": 2, "learns": ["*.lora_*"],
        "objective": {"kind": "instruct", "sources": [{"file": str(tmp_path / "said.jsonl")}],
                      "lora": {"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}},
        "optimizer": {"lr": 0.05}, "device": "cpu",
    })  # fmt: skip
    train(recipe, build_stage(recipe, lambda line: None, offline=True), tmp_path / "run")
    folder = exported(model, tmp_path / "run", tmp_path / "adapter")
    adapted = (
        peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder).eval().requires_grad_(False)
    )
    ids = torch.tensor([[5, 9, 4, 7, 20]])
    found = vlm.load(folder, offline=True)
    close(found.logits(ids), adapted(input_ids=ids).logits)
    assert (vlm.load(model, offline=True).logits(ids) - found.logits(ids)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["a card", "DeepSeek-VL2"])
def test_an_adapter_is_the_merged_model(kind: str, tmp_path: Path) -> None:
    """Of families without a class in transformers: what `vlm export --model` writes whole."""
    model, run = trained(kind, tmp_path)
    folder = exported(model, run, tmp_path / "adapter")
    assert main(["export", str(run), "--model", model, "--to", str(tmp_path / "whole")]) == 0
    ids, pixels, grids = vlm.load(model, offline=True).processor(SAID, [PICTURE])
    adapted, whole = (vlm.load(path, offline=True) for path in (folder, tmp_path / "whole"))
    torch.testing.assert_close(adapted.logits(ids, pixels, grids), whole.logits(ids, pixels, grids))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 7}}]
)
def test_an_adapter_that_peft_made_is_read(changes: dict[str, Any], tmp_path: Path) -> None:
    model = kinds.write("SmolVLM", tmp_path / "model")
    theirs = AutoModelForImageTextToText.from_pretrained(model, attn_implementation="eager")
    pattern = r"model\.text_model\.layers\.\d+\.self_attn\.(q|v)_proj"
    config = peft.LoraConfig(r=5, lora_alpha=9, target_modules=pattern, **changes)
    adapted = peft.get_peft_model(theirs, config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(tmp_path / "theirs")
    found = vlm.load(tmp_path / "theirs", offline=True)
    ids, pixels, grids = found.processor(SAID, [PICTURE])
    close(found.logits(ids, pixels, grids), adapted(input_ids=ids, pixel_values=pixels[None]).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "key peft_type: expected LORA, got 'LOHA'"),
        ({"use_dora": True}, "key use_dora: expected none, got True"),
        ({"bias": "all"}, "key bias: expected 'none', got 'all'"),
        ({"r": 3}, "expected rank 3 of .*, got 4"),
        ({"rank_pattern": {"(a+)+b": 2}}, "key rank_pattern: expected names of modules, got the pattern"),
        ({"r": 0}, "key rank_pattern: expected a positive number"),
        ({"lora_alpha": "x"}, "key alpha_pattern: expected a positive number"),
        ({"base_model_name_or_path": None}, "key base_model_name_or_path: expected a model, got None"),
    ],
)
def test_what_is_no_such_adapter_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    model, run = trained("SmolVLM", tmp_path)
    folder = exported(model, run, tmp_path / "adapter")
    described = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(described | changes))
    with pytest.raises(BadInput, match=message):
        vlm.load(folder, offline=True)


def test_tensors_that_fit_nowhere(tmp_path: Path) -> None:
    model, run = trained("SmolVLM", tmp_path)
    folder = exported(model, run, tmp_path / "adapter")
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if "layers.0." in name)
    save_file({**tensors, name.replace("layers.0.", "layers.9."): tensors[name].clone()}, folder / WEIGHTS)
    with pytest.raises(BadInput, match="unknown module"):
        vlm.load(folder, offline=True)
    (folder / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(BadInput, match="not a safetensors file"):
        vlm.load(folder, offline=True)


def test_a_card_goes_on_from_what_it_is_used_with(tmp_path: Path) -> None:
    """`start_from: trained`: the run holds what it learned alone."""
    model, run = trained("a card", tmp_path, start_from="trained")
    folder = exported(model, run, tmp_path / "adapter")
    assert set(load_file(run / "weights.safetensors")) == {
        name for name in load_file(run / "weights.safetensors") if "lora_" in name or name.startswith("projector.")
    }
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        Path(model).resolve()
    )

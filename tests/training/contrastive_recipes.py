"""Contrastive recipes on a few pictures and clips, and how their runs are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dual
import tiny
import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

from vlm.training.objectives.contrastive.task import ContrastiveTask
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage


def write_place(folder: Path) -> Path:
    """Two model cards (texts read by the language model, or by an encoder), data, clips and a teacher."""
    path = tiny.write_card(folder / "model")
    tiny.write_data(folder / "data", pictures=20)
    _write_clips(folder / "data")
    dual.save_dual(folder / "teacher")
    _write_encoder_card(path, folder / "model")
    return folder


def _write_encoder_card(language_card: Path, folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(dual.WORDS), **sizes)).save_pretrained(folder / "text")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dual.WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "text" / "tokenizer.json"))
    card = yaml.safe_load(language_card.read_text())
    card["model"]["alignment"]["text"] = "encoder"
    files = {name: {"path": name} for name in ("model.safetensors", "config.json", "tokenizer.json")}
    source = {"path": str(folder / "text"), "format": "hf", "files": files}
    card["parts"]["text"] = {"licence": "none", "about": "text", "sources": [source]}
    (folder / "encoder.yaml").write_text(yaml.safe_dump(card))


def _write_clips(folder: Path) -> None:
    """Two colours after one another: only their order tells half of the clips from the other half."""
    home = folder / "clips"
    home.mkdir()
    lines = []
    for number, (first, second) in enumerate([(a, b) for a in tiny.COLORS for b in tiny.COLORS if a != b]):
        frames = [f"{number}-{i}.png" for i in range(4)]
        for i, name in enumerate(frames):
            Image.new("RGB", (40, 40), tiny.COLORS[first if i < 2 else second]).save(home / name)
        for split in ("train", "val"):
            clip = {"video": f"{split}-{number}", "frames": frames, "split": split}
            lines.append({**clip, "captions": [f"{first} square and {second} cat"]})
    (home / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = {"about": "colours in turn", "licence": "none", "source": "made by the test", "folder": "clips"}
    card = {"name": "clips", "annotations": "clips.jsonl", "splits": {"train": 12, "val": 12}, **common}
    (folder / "clips.yaml").write_text(yaml.safe_dump(card))


def recipe(place: Path, objective: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    data = {
        "model": str(place / "model" / "encoder.yaml"), "data": str(place / "data"), "output": "run", "mirror": True,
        "objective": {"kind": "contrastive", "dataset": str(place / "data" / "squares.yaml"), **(objective or {})},
        "steps": 24, "batch": 8, "optimizer": {"lr": 0.01}, "save_every": 100, "validate_every": 100, "log_every": 1,
    }  # fmt: skip
    return Recipe.model_validate({**data, **changes})


def built(made: Recipe) -> ContrastiveTask:
    task = build_stage(made, lambda text: None, offline=True).task
    assert isinstance(task, ContrastiveTask)
    return task


def curve(run: Path, key: str = "loss") -> list[float]:
    return [json.loads(line)[key] for line in (run / "log.jsonl").read_text().splitlines()]


def falls(run: Path, key: str = "loss", to: float = 0.9) -> bool:
    values = curve(run, key)
    return sum(values[-5:]) < to * sum(values[:5])


def gradients(task: ContrastiveTask, step: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    task.backward(step)
    return {name: p.grad.clone() for name, p in task.trainable().items() if p.grad is not None}

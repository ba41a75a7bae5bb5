"""Models small enough to build, run and train in a test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from vlm.alignment.dual_encoder import AlignmentConfig
from vlm.language.config import LanguageConfig
from vlm.language.config.mixture import MoEConfig
from vlm.language.decoder import LanguageModel
from vlm.language.mixture.moe import MixtureOfExperts
from vlm.models.config import ModelConfig
from vlm.models.vision_language import VisionLanguageModel
from vlm.projector import PixelShuffleMLPConfig
from vlm.vision.tower import TowerConfig

MOE = MoEConfig(experts=4, top_k=2, width=8, first_dense=1, every=2)
LANGUAGE = LanguageConfig(
    vocab_size=320, width=32, layers=4, heads=4, kv_heads=2, head_width=8, ffn_width=48, max_positions=256, moe=MOE
)
TOWER = TowerConfig(
    library="timm", name="test_vit", image_size=64, patch=16, width=64, activation="gelu", mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)  # fmt: skip
MODEL = ModelConfig(
    tower=TOWER,
    projector=PixelShuffleMLPConfig(factor=2, hidden=32),
    language=LANGUAGE,
    alignment=AlignmentConfig(width=16, text="language", image_queries=2, text_queries=2, hidden=24),
    text_width=32,
)
SENTENCES = [
    "A red square on the wall.", "A blue square on the wall.", "A green square on the grass.", "user assistant",
    "Describe the picture.", "What color is the square?", "Is there a dog in the picture? yes no",
]  # fmt: skip


def language(moe: MoEConfig | None = MOE, seed: int = 0) -> LanguageModel:
    """A random decoder whose experts say something, in evaluation mode."""
    torch.manual_seed(seed)
    model = LanguageModel(LANGUAGE.model_copy(update={"moe": moe})).eval()
    with torch.no_grad():
        model.embedding.weight *= 0.1  # else a token's own embedding drowns what the layers say
        model.norm.weight *= 4  # and the logits can still be sure of themselves
        for layer in model.layers:
            if isinstance(layer.ffn, MixtureOfExperts):
                layer.ffn.router.bias_E.normal_(std=0.1)
    return model


def vision_language(seed: int = 0) -> VisionLanguageModel:
    """A random model of four visual tokens a picture."""
    torch.manual_seed(seed)
    return MODEL.build(TOWER.build(), language(seed=seed)).eval()


def prompts(
    model: VisionLanguageModel, ids: Sequence[list[int]], patches: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Each prompt's embeddings `[T, D]`, with the patch tokens `[F, N, D]` of its pictures, one clip each."""
    with torch.inference_mode():
        return [
            model.embed(torch.tensor([row]), [model.project(clip[i : i + 1], (1, 1)) for i in range(len(clip))])[0]
            for row, clip in zip(ids, patches, strict=True)
        ]


@torch.no_grad()
def logits(
    model: VisionLanguageModel, tokens_BT: torch.Tensor, patches_IND: torch.Tensor, **places: torch.Tensor
) -> torch.Tensor:
    """Logits `[B, T, V]` of ids with the patch tokens of their pictures, one clip or picture a row of `patches_IND`."""
    seen = [model.project(patches_IND[i : i + 1], (1, 1)) for i in range(len(patches_IND))]
    return model.language.logits(model.language.hidden(model.embed(tokens_BT, seen), **places))


def patches(pictures: int, seed: int = 0) -> torch.Tensor:
    """Random patch tokens `[I, N, D]` of `MODEL`'s tower."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pictures, TOWER.grid**2, TOWER.width, generator=generator)


def write_tokenizer(path: Path) -> Path:
    """A byte-level tokenizer with the control tokens of the template, of at most `LANGUAGE.vocab_size` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LANGUAGE.vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def write_card(folder: Path) -> Path:
    """A model card whose parts are random files in `folder`; the path of the card."""
    torch.manual_seed(0)
    tower, dense = TOWER.build(), language(moe=None)
    for part in ("tower", "language"):
        (folder / part).mkdir(parents=True)
    save_file(tower.vit.state_dict(), folder / "tower" / "model.safetensors")
    state = {name: t for name, t in dense.state_dict().items() if name != "lm_head.weight"}
    save_file(state, folder / "language" / "model.safetensors")
    (folder / "language" / "config.json").write_text(dense.cfg.model_dump_json())
    write_tokenizer(folder / "language" / "tokenizer.json")

    def part(name: str, *files: str) -> dict[str, object]:
        source = {"path": str(folder / name), "format": "hf", "files": {file: {"path": file} for file in files}}
        return {"licence": "none", "about": name, "sources": [source]}

    card = {
        "name": "tiny",
        "about": "random weights",
        "licence": "none",
        "model": json.loads(MODEL.model_dump_json()),
        "parts": {
            "tower": part("tower", "model.safetensors"),
            "language": part("language", "model.safetensors", "config.json", "tokenizer.json"),
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30), "black": (10, 10, 10)}


def write_data(folder: Path, pictures: int = 16) -> Path:
    """A data set of plain pictures in four colours: its card. Its files lie in `folder / "squares"`."""
    home = folder / "squares"
    home.mkdir(parents=True)
    lines, questions = [], []
    for number in range(pictures):
        color = list(COLORS)[number % 4]
        Image.new("RGB", (40 + number, 40), COLORS[color]).save(home / f"{number}.png")
        split = "val" if number >= pictures - 4 else "train"
        captions = [f"A {color} square on the wall .", f"A square that is {color} ."]
        lines.append({"image": f"{number}.png", "captions": captions, "split": split})
        questions.append({"image": f"{number}.png", "question": "What color is it?", "answers": [color]})
    (home / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "vqa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    common = {"about": "plain colours", "licence": "none", "source": "made by the test", "folder": "squares"}
    splits = {"train": pictures - 4, "val": 4}
    card = {"name": "squares", "annotations": "captions.jsonl", "splits": splits, **common}
    (folder / "squares.yaml").write_text(yaml.safe_dump(card))
    card = {"name": "squares-vqa", "annotations": "vqa.jsonl", "splits": {"train": pictures}, **common}
    (folder / "squares-vqa.yaml").write_text(yaml.safe_dump(card))
    return folder / "squares.yaml"

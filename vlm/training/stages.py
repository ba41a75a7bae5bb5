"""From a recipe to a running stage: the model, what is frozen, the data, the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vlm.conversation.template import Template
from vlm.datasets import examples as data
from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.language import LanguageModel
from vlm.language.lora import add_lora
from vlm.language.mixture.moe import SwiGLU
from vlm.media.images import load_image
from vlm.models.assemble import Assembled, assemble
from vlm.models.card import load_card
from vlm.models.trained import apply_trained, read_trained, weights_of
from vlm.models.vision_language import VisionLanguageModel, cast_parameters
from vlm.training.features import Features, cached_features
from vlm.training.objectives.config import InstructObjective, TextObjective, WordsObjective
from vlm.training.objectives.contrastive.build import contrastive_task, fitted_card
from vlm.training.objectives.contrastive.config import ContrastiveObjective
from vlm.training.objectives.instruct import InstructTask, Source, by_picture
from vlm.training.objectives.task import Say, Task
from vlm.training.objectives.text import text_task
from vlm.training.objectives.words import WordsTask
from vlm.training.recipe import Recipe
from vlm.weights.parts import cache_dir

VALIDATION_PICTURES = 200


@dataclass(frozen=True)
class Stage:
    task: Task
    earlier: dict[str, Tensor]
    """Trained weights the stage began with; what it trains is combined with them."""


def build_stage(recipe: Recipe, say: Say, offline: bool = False) -> Stage:
    """Load the model and the data of `recipe`, freeze what it does not train, and say what that is."""
    torch.manual_seed(recipe.seed)  # what starts at random - heads, projector, adapters - starts the same each time
    objective = recipe.objective
    if isinstance(objective, TextObjective):
        text = text_task(recipe, objective, say)
        if recipe.compile:
            compile_small_parts(text.model)
        return Stage(text, {})
    assert recipe.model is not None
    card = load_card(recipe.model)
    if isinstance(objective, ContrastiveObjective):
        card = fitted_card(card, objective)
    assembled = assemble(card, trained=False, offline=offline, report=say)
    earlier: dict[str, Tensor] = {}
    if recipe.start_from is not None:
        weights = weights_of(Path(recipe.start_from))
        earlier = read_trained(weights)
        apply_trained(assembled.named(), earlier, str(weights))
    folder = data.data_folder(recipe.data)
    for tensor in assembled.named().values():
        tensor.requires_grad_(False)
    task: Task
    if isinstance(objective, ContrastiveObjective):
        task = _contrastive(recipe, objective, assembled, folder, say)
    elif isinstance(objective, WordsObjective):
        task = _words(recipe, objective, assembled, folder, say)
    else:
        task = _instruct(recipe, objective, assembled, folder, say)
    trained = sum(p.numel() for p in task.trainable().values())
    everything = sum(p.numel() for p in assembled.named().values() if isinstance(p, torch.nn.Parameter))
    say(f"training {trained / 1e6:.1f} M of {everything / 1e6:.1f} M parameters: {_summary(task)}")
    return Stage(task, earlier)


def visual_features(model: VisionLanguageModel, pictures: Sequence[Path], mirror: bool, say: Say) -> Features:
    """Features of `pictures` (and their mirror images), cached; the tower runs in bfloat16."""
    tower = model.cfg.tower.build().eval()
    tower.load_state_dict(model.tower.state_dict())
    cast_parameters(tower, torch.bfloat16)

    @torch.inference_mode()
    def encode(images: list[Image.Image]) -> tuple[Tensor, Tensor]:
        output = tower(tower.preprocess(images).bfloat16())
        return output.tokens_BND, output.pooled_BD

    def report(done: int, total: int) -> None:
        if done % 1024 < 256 or done == total:
            say(f"visual features: {done} of {total}")

    key = f"{model.cfg.tower.model_dump_json()}/bfloat16"
    unique = sorted(set(pictures))
    views = [
        cached_features(
            unique, encode, folder=cache_dir() / "features", key=key, load=load_image, flipped=f, report=report
        )
        for f in ([False, True] if mirror else [False])
    ]
    for view in views[1:]:
        views[0].merge(view)
    return views[0]


def _contrastive(recipe: Recipe, objective: ContrastiveObjective, parts: Assembled, folder: Path, say: Say) -> Task:
    card = data.load_card(objective.dataset)
    train, validation = card.read(folder, "train"), card.read(folder, "val")

    def features_of(pictures: Sequence[Path], mirror: bool) -> Features:
        return visual_features(parts.model, pictures, mirror, say)

    return contrastive_task(recipe, objective, parts, train, validation, features_of, say)


def _words(recipe: Recipe, objective: WordsObjective, parts: Assembled, folder: Path, say: Say) -> Task:
    card = data.load_card(objective.dataset)
    train, validation = card.read(folder, "train"), card.read(folder, "val")
    parts.model.projector.requires_grad_(True)
    features = _features_of(parts.model, train, validation, recipe.mirror, say)
    return WordsTask(parts.model, parts.tokenizer, train, validation, features, recipe)


def _instruct(recipe: Recipe, objective: InstructObjective, parts: Assembled, folder: Path, say: Say) -> Task:
    model = parts.model
    sources: list[Source] = []
    validation: list[Example] = []
    features: Features | None = None
    for source in objective.sources:
        card = data.load_card(source.dataset)
        rows = card.read(folder, source.split)
        rows = by_picture(rows) if source.use == "questions" else [e for e in rows if e.captions]
        if not rows:
            raise BadInput(f"{recipe.output}: dataset {source.dataset} has nothing to use as {source.use}")
        sources.append(Source(rows, source.use, source.share, source.branches))
        pictures = [p for e in rows for p in e.pictures]
        read = visual_features(model, pictures, recipe.mirror and "caption" in source.use, say)
        if "val" in card.splits and not validation and source.use == "captions":
            held_out = card.read(folder, "val")
            validation = held_out[:VALIDATION_PICTURES]
            read.merge(visual_features(model, [p for e in held_out for p in e.pictures], False, say))
        features = read if features is None else features.merge(read)
    if features is None or not validation:
        raise BadInput(f"{recipe.output}: an instruct stage needs a source of captions whose data set has a val split")
    if objective.lora is not None:
        add_lora(model.language, objective.lora.rank, objective.lora.alpha, objective.lora.targets)
    for name, parameter in model.named_parameters():
        new = ".routed." in name or ".router." in name or ".lora_" in name
        parameter.requires_grad_(new or name.startswith("projector."))
    if recipe.precision == "bfloat16":
        cast_parameters(model.language, torch.bfloat16)
        cast_parameters(model.projector, torch.bfloat16)
    if recipe.compile:
        compile_small_parts(model.language)
    model.train()
    return InstructTask(model, Template(parts.tokenizer), sources, validation, features, objective, recipe)


def compile_small_parts(model: LanguageModel) -> None:
    """Fuse norms and gates."""
    for module in model.modules():
        if isinstance(module, torch.nn.RMSNorm | SwiGLU):
            module.compile(dynamic=True)


def _features_of(
    model: VisionLanguageModel, train: list[Example], validation: list[Example], mirror: bool, say: Say
) -> Features:
    features = visual_features(model, [p for e in train for p in e.pictures], mirror, say)
    features.merge(visual_features(model, [p for e in validation for p in e.pictures], False, say))
    return features


def _summary(task: Task) -> str:
    """Parameter counts by the first two parts of their names."""
    counts: dict[str, int] = {}
    for name, parameter in task.trainable().items():
        kind = next((k for k in ("routed", "router", "lora") if k in name), name.split(".")[0])
        counts[kind] = counts.get(kind, 0) + parameter.numel()
    return ", ".join(f"{kind} {count / 1e6:.2f} M" for kind, count in counts.items())

"""From a recipe to a running stage: the model, what is frozen, the data, the task."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vlm import config
from vlm.datasets import examples as data
from vlm.datasets.examples import Example
from vlm.devices import device_of
from vlm.errors import BadInput
from vlm.families.folder import load_parts
from vlm.files import read_json
from vlm.language import LanguageModel
from vlm.language.lora import add_lora
from vlm.language.mixture.moe import SwiGLU
from vlm.media.images import load_image
from vlm.models.assembled import Assembled
from vlm.models.space import add_space
from vlm.models.trained import apply_trained, read_trained, weights_of
from vlm.models.vision_language import VisionLanguageModel, cast_parameters
from vlm.training.features import Features, cached_features
from vlm.training.inputs import uses_cached_features
from vlm.training.objectives.bag_of_words import BagOfWordsTask
from vlm.training.objectives.config import BagOfWordsObjective, InstructObjective, TextObjective
from vlm.training.objectives.contrastive.build import contrastive_task, fitted_card
from vlm.training.objectives.contrastive.config import ContrastiveObjective
from vlm.training.objectives.instruct import InstructTask, Source, by_picture
from vlm.training.objectives.text import text_task
from vlm.training.recipe import Recipe
from vlm.training.task import Log, Task
from vlm.training.trainable import set_trainable, summary
from vlm.weights.parts import cache_dir

VALIDATION_PICTURES = 200
INSTRUCT = ("projector", "*.routed.*", "*.router.*", "*.lora_*")
"""What an instruct stage trains where its recipe does not say: of these what the model has."""


@dataclass(frozen=True)
class Stage:
    task: Task
    earlier: dict[str, Tensor]
    """Trained weights the stage began with; what it trains is combined with them."""


def build_stage(recipe: Recipe, log: Log, offline: bool = False) -> Stage:
    """Load the model and the data of `recipe`, freeze what it does not train, and say what that is."""
    torch.manual_seed(recipe.seed)  # what starts at random - heads, projector, adapters - starts the same each time
    objective = recipe.objective
    if isinstance(objective, TextObjective):
        text = text_task(recipe, objective, log)
        if recipe.compile:
            compile_small_parts(text.model)
        return Stage(text, {})
    assert recipe.model is not None
    fit = (lambda card: fitted_card(card, objective)) if isinstance(objective, ContrastiveObjective) else None
    parts = load_parts(recipe.model, trained=False, fit=fit, offline=offline, report=log)
    if isinstance(objective, ContrastiveObjective) and objective.space is not None:
        add_space(parts, objective.space)
    parts = parts.to(device_of(recipe.device), None)
    earlier: dict[str, Tensor] = {}
    if recipe.start_from is not None:
        weights = weights_of(Path(recipe.start_from))
        earlier = read_trained(weights)
        apply_trained(parts.named(), earlier, str(weights))
    folder = data.data_folder(recipe.data)
    for tensor in parts.named().values():
        tensor.requires_grad_(False)
    task: Task
    if isinstance(objective, ContrastiveObjective):
        task = _contrastive(recipe, objective, parts, folder, log)
    elif isinstance(objective, BagOfWordsObjective):
        task = _bag_of_words(recipe, objective, parts, folder, log)
    elif isinstance(objective, InstructObjective):
        task = _instruct(recipe, objective, parts, folder, log)
    else:
        task = objective.task(recipe, parts, folder, log)
    everything = sum(p.numel() for p in parts.named().values() if isinstance(p, torch.nn.Parameter))
    trained = sum(p.numel() for p in task.trainable().values())
    log(f"training {trained / 1e6:.1f} M of {everything / 1e6:.1f} M parameters")
    return Stage(task, earlier)


def give_space(parts: Assembled, run: Path) -> None:
    """Give a model the shared space that a run began on it, so that what the run trained has its place."""
    state = run / "checkpoint" / "state.json"
    if parts.model.alignment is not None or not state.is_file():
        return
    recipe = config.parse(Recipe, read_json(state).get("recipe"), f"{state}: recipe")
    if isinstance(recipe.objective, ContrastiveObjective) and recipe.objective.space is not None:
        add_space(parts, recipe.objective.space)


def visual_features(model: VisionLanguageModel, pictures: Sequence[Path], mirror: bool, log: Log) -> Features:
    """Features of `pictures` (and their mirror images), cached; the tower runs in bfloat16."""
    assert model.tower is not None
    tower = deepcopy(model.tower).eval()
    cast_parameters(tower, torch.bfloat16)
    device = next(tower.parameters()).device

    @torch.inference_mode()
    def encode(images: list[Image.Image]) -> tuple[Tensor, Tensor]:
        output = tower(tower.preprocess(images).to(device, torch.bfloat16))
        return output.tokens_BND.cpu(), output.pooled_BD.cpu()

    def report(done: int, total: int) -> None:
        if done % 1024 < 256 or done == total:
            log(f"visual features: {done} of {total}")

    key = f"{model.tower.cfg.model_dump_json()}/bfloat16"
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


def _contrastive(recipe: Recipe, objective: ContrastiveObjective, parts: Assembled, folder: Path, log: Log) -> Task:
    if parts.model.alignment is None:
        raise BadInput(f"{recipe.output}: model {parts.name} has no shared space; give objective.space to begin one")
    card = data.load_card(objective.dataset)
    train, validation = card.read(folder, "train", report=log), card.read(folder, "val", report=log)

    def features_of(pictures: Sequence[Path], mirror: bool) -> Features:
        return visual_features(parts.model, pictures, mirror, log)

    return contrastive_task(recipe, objective, parts, train, validation, features_of, log)


def _bag_of_words(recipe: Recipe, objective: BagOfWordsObjective, parts: Assembled, folder: Path, log: Log) -> Task:
    card = data.load_card(objective.dataset)
    train, validation = card.read(folder, "train", report=log), card.read(folder, "val", report=log)
    _set_trainable(parts, recipe.learns or ("projector",), (), log)
    if not uses_cached_features(parts):
        raise BadInput(f"{recipe.output}: objective bag_of_words needs a frozen tower and pictures of one view each")
    features = visual_features(parts.model, [p for e in train for p in e.pictures], recipe.mirror, log)
    features.merge(visual_features(parts.model, [p for e in validation for p in e.pictures], False, log))
    return BagOfWordsTask(parts.model, parts.tokenizer, train, validation, features, recipe)


def _instruct(recipe: Recipe, objective: InstructObjective, parts: Assembled, folder: Path, log: Log) -> Task:
    model = parts.model
    if objective.lora is not None:
        add_lora(model.language, objective.lora.rank, objective.lora.alpha, objective.lora.targets)
    _set_trainable(parts, recipe.learns or INSTRUCT, () if recipe.learns else INSTRUCT, log)
    sources: list[Source] = []
    validation: list[Example] = []
    for source in objective.sources:
        card = data.load_card(source.dataset)
        rows = card.read(folder, source.split, report=log)
        rows = by_picture(rows) if source.use == "questions" else [e for e in rows if e.captions]
        if not rows:
            raise BadInput(f"{recipe.output}: dataset {source.dataset} has nothing to use as {source.use}")
        sources.append(Source(rows, source.use, source.share, source.branches))
        if "val" in card.splits and not validation and source.use == "captions":
            validation = [e for e in card.read(folder, "val", report=log) if e.captions][:VALIDATION_PICTURES]
    if not validation:
        log("no source of captions has a val split: the stage goes without validation")
    features = _features(recipe, parts, sources, validation, log) if uses_cached_features(parts) else None
    if recipe.precision == "bfloat16":
        cast_parameters(model.language, torch.bfloat16)
        cast_parameters(model.projector, torch.bfloat16)
        cast_parameters(model.arrangement, torch.bfloat16)
    if recipe.compile:
        compile_small_parts(model.language)
    model.train()
    return InstructTask(parts, sources, validation, features, objective, recipe)


def _features(
    recipe: Recipe, parts: Assembled, sources: Sequence[Source], validation: Sequence[Example], log: Log
) -> Features | None:
    """Patches of all pictures; none where a source has only clips of its own files."""
    found: list[Features] = []
    for source in sources:
        if pictures := [p for e in source.examples for p in e.pictures]:
            mirror = recipe.mirror and "caption" in source.use
            found.append(visual_features(parts.model, pictures, mirror, log))
    if held_out := [p for e in validation for p in e.pictures]:
        found.append(visual_features(parts.model, held_out, False, log))
    for more in found[1:]:
        found[0].merge(more)
    return found[0] if found else None


def _set_trainable(parts: Assembled, patterns: Sequence[str], optional: Sequence[str], log: Log) -> None:
    named = dict(parts.model.named_parameters())
    for line in summary(set_trainable(named, patterns, optional), sum(p.numel() for p in named.values())):
        log(line)


def compile_small_parts(model: LanguageModel) -> None:
    """Fuse norms and gates."""
    for module in model.modules():
        if isinstance(module, torch.nn.RMSNorm | SwiGLU):
            module.compile(dynamic=True)

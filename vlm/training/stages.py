"""From a recipe to a running stage: the model, what is frozen, the data, the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vlm import config
from vlm.datasets import examples as data
from vlm.devices import device_of
from vlm.errors import BadInput
from vlm.families.folder import load_parts
from vlm.files import read_json
from vlm.language import LanguageModel
from vlm.language.mixture.moe import SwiGLU
from vlm.models.assembled import Assembled
from vlm.models.space import add_space
from vlm.models.trained import apply_trained, read_trained, weights_of
from vlm.training.features import Features
from vlm.training.inputs import uses_cached_features
from vlm.training.objectives.bag_of_words import BagOfWordsTask
from vlm.training.objectives.config import BagOfWordsObjective, InstructObjective, TextObjective
from vlm.training.objectives.contrastive.build import contrastive_task, fitted_card
from vlm.training.objectives.contrastive.config import ContrastiveObjective
from vlm.training.objectives.instruct_build import instruct_task
from vlm.training.objectives.text import text_task
from vlm.training.recipe import Recipe
from vlm.training.task import Log, Task
from vlm.training.tower_features import visual_features
from vlm.training.trainable import set_trainable, summary

TRAINED = "trained"
"""What a recipe starts from that goes on from a card's model as it is used."""


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
    parts = load_parts(recipe.model, trained=recipe.start_from == TRAINED, fit=fit, offline=offline, report=log)
    if isinstance(objective, ContrastiveObjective) and objective.space is not None:
        add_space(parts, objective.space)
    parts = parts.to(device_of(recipe.device), None)
    earlier: dict[str, Tensor] = {}
    if recipe.start_from not in (None, TRAINED):
        weights = weights_of(Path(recipe.start_from))
        earlier = read_trained(weights)
        apply_trained(parts.named(), earlier, str(weights))
    files_alone = isinstance(objective, InstructObjective) and all(source.file for source in objective.sources)
    folder = Path() if files_alone else data.data_folder(recipe.data)
    for tensor in parts.named().values():
        tensor.requires_grad_(False)
    task: Task
    if isinstance(objective, ContrastiveObjective):
        task = _contrastive(recipe, objective, parts, folder, log)
    elif isinstance(objective, BagOfWordsObjective):
        task = _bag_of_words(recipe, objective, parts, folder, log)
    elif isinstance(objective, InstructObjective):
        task = instruct_task(recipe, objective, parts, folder, log, offline)
        if recipe.compile:
            compile_small_parts(parts.model.language)
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
    named = dict(parts.model.named_parameters())
    found = set_trainable(named, recipe.learns or ("projector",))
    for line in summary(found, sum(p.numel() for p in named.values())):
        log(line)
    if not uses_cached_features(parts):
        raise BadInput(f"{recipe.output}: objective bag_of_words needs a frozen tower and pictures of one view each")
    features = visual_features(parts.model, [p for e in train for p in e.pictures], recipe.mirror, log)
    features.merge(visual_features(parts.model, [p for e in validation for p in e.pictures], False, log))
    return BagOfWordsTask(parts.model, parts.tokenizer, train, validation, features, recipe)


def compile_small_parts(model: LanguageModel) -> None:
    """Fuse norms and gates."""
    for module in model.modules():
        if isinstance(module, torch.nn.RMSNorm | SwiGLU):
            module.compile(dynamic=True)

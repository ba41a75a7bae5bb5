"""From a recipe of objective `contrastive` to its task: what is frozen, what is computed once, which terms it has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.files import atomic_folder
from vlm.heads.retrieval import Embedder
from vlm.media.video.sampling import load_clip
from vlm.models.assemble import Assembled
from vlm.models.card import ModelCard
from vlm.models.dual_encoders import load_pair
from vlm.training.features import Features
from vlm.training.objectives.contrastive.batches import Batches, mined
from vlm.training.objectives.contrastive.config import ContrastiveObjective
from vlm.training.objectives.contrastive.sides import (
    FrozenImages,
    FrozenTexts,
    Images,
    LearningImages,
    LearningTexts,
    Texts,
)
from vlm.training.objectives.contrastive.task import ContrastiveTask
from vlm.training.objectives.contrastive.terms import Distilled, FrameOrder, Matching, Term, Written
from vlm.training.task import Log
from vlm.weights.parts import cache_dir

if TYPE_CHECKING:
    from vlm.training.recipe import Recipe

FeaturesOf = Callable[[Sequence[Path], bool], Features]
"""Features of these pictures, and of their mirror images where the flag says so."""


def fitted_card(card: ModelCard, objective: ContrastiveObjective) -> ModelCard:
    """The card with the text side the recipe asks for, and a place for each frame of its clips."""
    model, alignment = card.model, card.model.alignment
    if alignment is None:
        return card
    width = model.text_width
    if objective.text is not None:
        alignment = alignment.model_copy(update={"text": objective.text})
        width = model.language.width if objective.text == "language" else width
    if objective.clips is not None:
        alignment = alignment.model_copy(update={"frames": objective.clips.frames})
    if objective.locked != "both" and alignment.text == "language":
        raise BadInput(f"model {card.name}: locked: {objective.locked} needs a model whose alignment.text is encoder")
    return card.model_copy(update={"model": model.model_copy(update={"alignment": alignment, "text_width": width})})


def contrastive_task(
    recipe: Recipe,
    objective: ContrastiveObjective,
    parts: Assembled,
    train: list[Example],
    validation: list[Example],
    features_of: FeaturesOf,
    log: Log,
) -> ContrastiveTask:
    """Raises `BadInput` for examples that have no captions, or are clips where the recipe does not say `clips`."""
    train, validation = _shown(train, objective, recipe.output), _shown(validation, objective, recipe.output)
    model, embedder = parts.model, Embedder.of(parts)
    assert embedder is not None
    assert model.alignment is not None
    model.alignment.requires_grad_(True)
    model.alignment.train()
    if objective.locked != "both":
        assert parts.text_encoder is not None
        parts.text_encoder.requires_grad_(True)
    images: Images
    features = None
    if objective.locked != "none" or objective.hard.nearest:
        features = features_of([p for e in train for p in e.pictures], recipe.mirror)
    if objective.locked == "none":
        assert model.tower is not None
        model.tower.requires_grad_(True)
        images = LearningImages(model)
    else:
        assert features is not None
        images = FrozenImages(
            model.alignment, features.merge(features_of([p for e in validation for p in e.pictures], False))
        )
    nearest = None
    if objective.hard.nearest and features is not None:
        seen = torch.stack([features.pooled(e.pictures).float().mean(dim=0) for e in train])
        nearest = mined(seen, objective.hard.nearest)
    batches = Batches(train, objective, batch=recipe.batch, seed=recipe.seed, mirror=recipe.mirror, nearest=nearest)
    said = [list(e.captions) for e in validation]
    texts: list[Texts] = [
        FrozenTexts(embedder, rows, log) if objective.locked == "both" else LearningTexts(embedder, rows)
        for rows in (batches.texts, said)
    ]
    terms: list[Term] = [Matching(model.alignment, objective)]
    if objective.clips is not None and objective.clips.order:
        terms.append(FrameOrder(model.alignment, objective.clips.order))
    if objective.distill is not None:
        teacher = load_pair(Path(objective.distill.teacher).expanduser())
        pictures = [e.pictures for e in train]
        terms.append(Distilled(model.alignment, teacher, pictures, batches.texts, objective.distill.weight, log))
    written = None
    if objective.write is not None:
        model.projector.requires_grad_(True)
        write = objective.write
        written = Written(parts, images, batches.texts, write.weight, write.pictures)
    return ContrastiveTask(parts, batches, images, texts[0], terms, written, validation, texts[1], objective.cached)


def _shown(examples: list[Example], objective: ContrastiveObjective, where: str) -> list[Example]:
    """The examples with the pictures that are shown of them: one, or so many frames of a clip."""
    if bare := next((e for e in examples if not e.captions), None):
        raise BadInput(f"{where}: example {bare.id} has no captions")
    if objective.clips is None:
        if clip := next((e for e in examples if e.image is None), None):
            raise BadInput(f"{where}: example {clip.id} is a clip; expected pictures, or clips: {{frames: N}}")
        return examples
    return [e.model_copy(update={"frames": _frames(e, objective.clips.frames), "image": None}) for e in examples]


def _frames(example: Example, count: int) -> tuple[Path, ...]:
    """`count` frames spread evenly over a clip; a file's are decoded once and kept."""
    frames = example.pictures
    if not frames:
        video = Path(str(example.video))
        stamp = f"{video.resolve()}/{video.stat().st_size}/{count}"
        folder = cache_dir() / "frames" / hashlib.sha256(stamp.encode()).hexdigest()[:16]
        if not folder.is_dir():
            with atomic_folder(folder) as fresh:
                for number, frame in enumerate(load_clip(video, count).frames):
                    frame.save(fresh / f"{number:04d}.png")
        frames = tuple(sorted(folder.glob("*.png")))
    return tuple(frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int))

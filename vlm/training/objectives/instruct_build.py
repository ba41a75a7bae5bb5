"""From an instruct recipe to its task: what learns, what is read, what is held out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from vlm.datasets import examples as data
from vlm.datasets.conversations import ConversationFile
from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.language.lora import add_lora
from vlm.media.images import load_image
from vlm.media.kinds import is_video
from vlm.models.assembled import Assembled
from vlm.models.vision_language import cast_parameters
from vlm.training.features import Features
from vlm.training.inputs import TrainingInputs, uses_cached_features
from vlm.training.objectives.config import DistilObjective, InstructObjective, SourceConfig
from vlm.training.objectives.distil import DistilTask, Teacher, load_teacher
from vlm.training.objectives.instruct import InstructTask
from vlm.training.objectives.instruct_sources import ConversationSource, ExampleSource, Item, Source, by_picture
from vlm.training.quarantine import Quarantine
from vlm.training.task import Log
from vlm.training.tower_features import visual_features
from vlm.training.trainable import set_trainable, summary

if TYPE_CHECKING:
    from vlm.training.recipe import Recipe

VALIDATION = 200
"""Pictures or conversations, at most."""
HELD_OUT = 20
"""One of so many conversations of a file is not learned, where nothing else is there to validate on."""
INSTRUCT = ("projector", "*.routed.*", "*.router.*", "*.lora_*")
"""What a stage trains where its recipe does not say: of these what the model has."""


def instruct_task(
    recipe: Recipe, objective: InstructObjective, parts: Assembled, folder: Path, log: Log, offline: bool = False
) -> InstructTask:
    """Of objective `instruct` or `distil`."""
    model = parts.model
    if objective.lora is not None:
        add_lora(model.language, objective.lora.rank, objective.lora.alpha, objective.lora.targets)
    named = dict(model.named_parameters())
    found = set_trainable(named, recipe.learns or INSTRUCT, () if recipe.learns else INSTRUCT)
    for line in summary(found, sum(p.numel() for p in named.values())):
        log(line)
    reading = _Reading(recipe, objective, parts, folder, log)
    sources = reading.sources(reading.inputs)
    validation, validated = reading.validation()
    teacher = None
    if isinstance(objective, DistilObjective):
        inputs = reading.inputs_of(load_teacher(objective, parts, recipe, log, offline))
        teacher = Teacher(inputs, reading.sources(inputs))
    if recipe.precision == "bfloat16":
        for part in (model.language, model.projector, model.arrangement):
            cast_parameters(part, torch.bfloat16)
    model.train()
    if isinstance(objective, DistilObjective) and teacher is not None:
        return DistilTask(reading.inputs, sources, teacher, validation, objective, recipe, validated)
    return InstructTask(reading.inputs, sources, validation, objective, recipe, validated)


class _Reading:
    """The sources of a recipe, opened; patches of their pictures are kept where the model allows it."""

    def __init__(self, recipe: Recipe, objective: InstructObjective, parts: Assembled, folder: Path, log: Log):
        self.recipe, self.objective, self.log = recipe, objective, log
        self.quarantine = Quarantine(Path(recipe.output), objective.faulty, log)
        self.files = {one.file: self._file(one.file) for one in objective.sources if one.file is not None}
        self.rows = {one: self._rows(one, folder) for one in objective.sources if one.dataset is not None}
        self.held_out_examples = self._held_out_examples(folder)
        self.held_out = self._held_out()
        self.inputs = self.inputs_of(parts)

    def sources(self, inputs: TrainingInputs) -> list[Source]:
        """As the model of `inputs` reads them."""
        return [self._source(one, inputs) for one in self.objective.sources]

    def inputs_of(self, parts: Assembled) -> TrainingInputs:
        return TrainingInputs(parts, self._features(parts) if uses_cached_features(parts) else None)

    def _source(self, one: SourceConfig, inputs: TrainingInputs) -> Source:
        if one.file is None:
            assert one.use is not None
            return ExampleSource(self.rows[one], one.use, inputs, one.share, one.branches)
        file = self.files[one.file]
        end = len(file) - (len(self.held_out[1]) if self.held_out and self.held_out[0] is file else 0)
        return ConversationSource(file, inputs, self.quarantine, range(end), one.share)

    def validation(self) -> tuple[list[Item], str]:
        """What is not learned, and how its loss is called."""
        if self.held_out is None:
            if not self.held_out_examples:
                self.log("nothing is held out: the stage goes without validation")
            captions = ExampleSource(self.held_out_examples, "captions", self.inputs)
            items = [captions.items(place, random.Random(0), False) for place in range(len(captions))]
            return [item for own in items for item in own], "caption_loss"
        file, places = self.held_out
        source = ConversationSource(file, self.inputs, self.quarantine, places)
        items = [source.items(place, random.Random(0), False) for place in range(len(source))]
        return [item for own in items for item in own], "validation_loss"

    def _rows(self, one: SourceConfig, folder: Path) -> list[Example]:
        card = data.load_card(str(one.dataset))
        rows = card.read(folder, one.split, report=self.log)
        rows = by_picture(rows) if one.use == "questions" else [e for e in rows if e.captions]
        if not rows:
            raise BadInput(f"{self.recipe.output}: dataset {one.dataset} has nothing to use as {one.use}")
        return rows

    def _file(self, name: str) -> ConversationFile:
        file = ConversationFile(name)
        for fault in file.faults:
            self.quarantine.add(f"{file.path}:{fault.line}", fault.reason)
        if not len(file):
            raise BadInput(f"{name}: expected conversations, got none that can be used")
        return file

    def _held_out_examples(self, folder: Path) -> list[Example]:
        """Captions of the first data set that has a `val` split."""
        for one in self.rows if self.objective.validate_on is None else ():
            card = data.load_card(str(one.dataset))
            if one.use == "captions" and "val" in card.splits:
                return [e for e in card.read(folder, "val", report=self.log) if e.captions][:VALIDATION]
        return []

    def _held_out(self) -> tuple[ConversationFile, range] | None:
        if self.objective.validate_on is not None:
            file = self._file(self.objective.validate_on)
            return file, range(min(len(file), VALIDATION))
        if self.held_out_examples or not self.files:
            return None
        name, file = next(iter(self.files.items()))
        if not (count := min(len(file) // HELD_OUT, VALIDATION)):
            return None
        self.log(
            f"the last {count} of {len(file)} conversations of {name} are not learned: the loss is validated there"
        )
        return file, range(len(file) - count, len(file))

    def _features(self, parts: Assembled) -> Features | None:
        """Patches of all pictures; none where there are only clips."""
        found: list[Features] = []
        for one, rows in self.rows.items():
            if pictures := [p for e in rows for p in e.pictures]:
                mirror = self.recipe.mirror and "caption" in str(one.use)
                found.append(visual_features(parts.model, pictures, mirror, self.log))
        if pictures := [p for e in self.held_out_examples for p in e.pictures]:
            found.append(visual_features(parts.model, pictures, False, self.log))
        files = {*self.files.values(), *([self.held_out[0]] if self.held_out else [])}
        if pictures := sorted({path for file in files for path in _pictures(file)}):
            found.append(visual_features(parts.model, pictures, False, self.log, _readable))
        for more in found[1:]:
            found[0].merge(more)
        return found[0] if found else None


def _pictures(file: ConversationFile) -> Sequence[Path]:
    paths = {source for sample in file for source in sample.media if isinstance(source, str)}
    return [Path(path) for path in paths if Path(path).is_file() and not is_video(path)]


def _readable(path: Path) -> Image.Image | None:
    try:
        return load_image(path)
    except BadInput:
        return None

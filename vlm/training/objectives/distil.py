"""A model learns from what a larger one would say, token by token, behind the same pictures and words.

Each model reads its own prompts - a teacher may see a picture in more tokens - and both predict the same replies.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlm.devices import device_of
from vlm.errors import BadInput
from vlm.families.folder import load_parts
from vlm.models.assembled import Assembled
from vlm.training.divergences import head_divergence
from vlm.training.inputs import TrainingInputs
from vlm.training.objectives.config import DistilObjective
from vlm.training.objectives.instruct import InstructTask, Rows, reply_states
from vlm.training.objectives.instruct_sources import Item, Source
from vlm.training.task import Figures, Log

if TYPE_CHECKING:
    from vlm.training.recipe import Recipe


@dataclass(frozen=True)
class Teacher:
    """A model, and the recipe's sources as it reads them."""

    inputs: TrainingInputs
    sources: Sequence[Source]


class DistilTask(InstructTask):
    """The replies' own loss and the divergence from the teacher, each by its weight."""

    def __init__(
        self,
        inputs: TrainingInputs,
        sources: Sequence[Source],
        teacher: Teacher,
        validation: Sequence[Item],
        objective: DistilObjective,
        recipe: Recipe,
        validated: str,
    ):
        super().__init__(inputs, sources, validation, objective, recipe, validated)
        self.teacher, self.objective = teacher, objective
        self._taught: dict[int, list[tuple[Item, int]]] = {}
        """Of each sequence of the step, by its identity, the teacher's sequence for each of its replies, and which of
        that sequence's replies it is."""
        self._divergence = 0.0

    def backward(self, step: int) -> Tensor:
        self._divergence = 0.0
        return super().backward(step)

    def figures(self) -> Figures:
        """The divergence of the last step's replies, summed, beside where tokens were routed."""
        return super().figures() | {"divergence": self._divergence}

    def _items(self, step: int) -> list[Item]:
        self._taught, items = {}, []
        for source, example, occurrence in self.steps[step]:
            seed = f"{self.seed}/{source}/{example}/{occurrence}"
            own = self.sources[source].items(example, random.Random(seed), self.mirror)
            taught = self.teacher.sources[source].items(example, random.Random(seed), self.mirror)
            theirs = [(item, number) for item in taught for number in range(len(item.packed.replies))]
            said = [item.packed.replies[number] for item, number in theirs]
            if [reply for item in own for reply in item.packed.replies] != said:
                if not own or not taught:  # too long for one of them
                    continue
                raise BadInput(f"teacher {self.objective.teacher}: expected the same replies, got others of one sample")
            rest = iter(theirs)
            for item in own:
                self._taught[id(item)] = [next(rest) for _ in item.packed.replies]
            items += own
        if not items:
            raise BadInput(f"step {step + 1}: expected a sample that can be used, got none of {len(self.steps[step])}")
        return items

    def _loss(self, rows: Rows, words_V: Tensor | None) -> Tensor:
        hidden_RD, labels_R = reply_states(self.inputs, rows)
        head, wanted = self.model.language.lm_head, self.objective
        teacher_head = self.teacher.inputs.parts.model.language.lm_head
        taught = head_divergence(
            hidden_RD, head.weight, head.bias, self._teachers(rows), teacher_head.weight, teacher_head.bias,
            kind=wanted.divergence, skew=wanted.skew, temperature=wanted.temperature,
        )  # fmt: skip
        self._divergence += float(taught.detach())
        if wanted.weight == 1:
            return taught
        return wanted.weight * taught + (1 - wanted.weight) * self._next_token(hidden_RD, labels_R, words_V)

    @torch.no_grad()
    def _teachers(self, rows: Rows) -> Tensor:
        """The teacher's states `[R, E]` at the same reply tokens."""
        wanted = [pair for row in rows for item in row for pair in self._taught[id(item)]]
        items = list({id(item): item for item, _ in wanted}.values())
        hidden_RE, _ = reply_states(self.teacher.inputs, [[item] for item in items])
        lengths = [len(reply) for item in items for reply in item.packed.replies]
        pieces = iter(hidden_RE.split(lengths))
        states = {(id(item), number): next(pieces) for item in items for number in range(len(item.packed.replies))}
        return torch.cat([states[id(item), number] for item, number in wanted])


def load_teacher(objective: DistilObjective, student: Assembled, recipe: Recipe, log: Log, offline: bool) -> Assembled:
    """The teacher, frozen. Raises `BadInput` where its tokens are not the student's."""
    parts = load_parts(objective.teacher, offline=offline, report=log).to(device_of(recipe.device), None)
    own, theirs = student.tokenizer.vocabulary(), parts.tokenizer.vocabulary()
    if differing := [token for token, number in own.items() if theirs.get(token, number) != number]:
        token = differing[0]
        said = f"token {token!r} is {theirs[token]} there and {own[token]} here"
        raise BadInput(f"teacher {objective.teacher}: expected a model with the same tokens; {said}")
    if len(own.keys() & theirs.keys()) < 0.99 * len(own):
        shared = len(own.keys() & theirs.keys())
        raise BadInput(
            f"teacher {objective.teacher}: expected a model with the same tokens, got {shared} of {len(own)}"
        )
    for tensor in parts.named().values():
        tensor.requires_grad_(False)
    parts.model.eval()
    return parts

"""Replies behind pictures: next-token loss on the replies of packed sequences, for any model.

B rows, T tokens, R reply tokens of the batch, D language width, V words in the step's softmax.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vlm.conversation.packing import IGNORE, in_rows, pack
from vlm.errors import BadInput
from vlm.language.lora import portable
from vlm.language.mixture.moe import Router
from vlm.language.mixture.statistics import step_statistics
from vlm.training.inputs import TrainingInputs
from vlm.training.losses import head_loss
from vlm.training.objectives.config import InstructObjective
from vlm.training.objectives.instruct_sources import Item, Source
from vlm.training.schedule import batches, mixture
from vlm.training.task import Figures, Task

if TYPE_CHECKING:
    from vlm.training.recipe import Recipe

Rows = Sequence[Sequence[Item]]
"""Sequences that share a row."""


class InstructTask(Task):
    def __init__(
        self,
        inputs: TrainingInputs,
        sources: Sequence[Source],
        validation: Sequence[Item],
        objective: InstructObjective,
        recipe: Recipe,
        validated: str = "caption_loss",
    ):
        """`validated` is the name of the loss on the sequences of `validation`."""
        self.model, self.inputs, self.sources = inputs.parts.model, inputs, sources
        self.mirror, self.seed, self.parts = recipe.mirror, recipe.seed, recipe.accumulate
        self.length, self.validation, self.validated = objective.length, validation, validated
        self.sampled_words = objective.words_of_a_step
        self.lora_scale = objective.lora.alpha / objective.lora.rank if objective.lora is not None else 1.0
        sizes, shares = [len(source) for source in sources], [source.share for source in sources]
        self.steps = batches(mixture(sizes, shares, recipe.steps * recipe.batch, recipe.seed), recipe.batch)
        self.words_V = self._words() if self.sampled_words else None
        named = dict(self.model.named_parameters())
        self._routing: Figures = {}
        self._trainable = {name: p for name, p in named.items() if p.requires_grad}

    def trainable(self) -> dict[str, nn.Parameter]:
        return self._trainable

    def loss(self, step: int) -> Tensor:
        rows = self._rows(self._items(step))
        return self._loss(rows, self._words_of(step)) / _learned(rows) + sum(self._router_losses())

    def backward(self, step: int) -> Tensor:
        """In `accumulate` parts, one after the other: the gradients are those of the whole batch."""
        rows = self._rows(self._items(step))
        words_V, learned, total = self._words_of(step), _learned(rows), torch.zeros((), device=self.model.device)
        size = -(-len(rows) // self.parts)
        for begin in range(0, len(rows), size):
            part = rows[begin : begin + size]
            loss = self._loss(part, words_V) / learned + sum(self._router_losses()) * (len(part) / len(rows))
            loss.backward()
            total += loss.detach()
        return total

    def _items(self, step: int) -> list[Item]:
        items: list[Item] = []
        for source, example, occurrence in self.steps[step]:
            rng = random.Random(f"{self.seed}/{source}/{example}/{occurrence}")
            items += self.sources[source].items(example, rng, self.mirror)
        if not items:
            raise BadInput(f"step {step + 1}: expected a sample that can be used, got none of {len(self.steps[step])}")
        return items

    def _rows(self, items: Sequence[Item]) -> Rows:
        if self.length is None:
            return [[item] for item in items]
        return [[items[i] for i in row] for row in in_rows([item.packed.tokens for item in items], self.length)]

    def _loss(self, rows: Rows, words_V: Tensor | None) -> Tensor:
        """The sum over reply tokens of what is made small."""
        return self._next_token(*reply_states(self.inputs, rows), words_V)

    def _next_token(self, hidden_RD: Tensor, labels_R: Tensor, words_V: Tensor | None) -> Tensor:
        """The sum of the cross-entropies over some words, by default all."""
        head = self.model.language.lm_head
        weight_VD: Tensor = head.weight
        bias_V: Tensor | None = head.bias
        if words_V is not None:
            # A reply's word is always in the softmax, also one no caption says (a rule answers "gray" to "grey").
            words_V = torch.cat([words_V.to(labels_R.device), labels_R]).unique()
            weight_VD, bias_V = weight_VD[words_V], None if bias_V is None else bias_V[words_V]
            labels_R = torch.searchsorted(words_V, labels_R)
        return head_loss(hidden_RD, weight_VD, bias_V, labels_R)

    def _router_losses(self) -> list[Tensor]:
        return list(self.model.language.router_losses().values())

    def after_step(self) -> None:
        self._routing = {**step_statistics(self.model.language.routers()).figures()}
        for router in self.model.language.routers():
            if self._learns(router):
                router.balance()
            else:
                router.load_E.zero_()

    def figures(self) -> Figures:
        return self._routing

    @torch.no_grad()
    def validate(self) -> Figures:
        """Loss a token, on the held-out sequences; none without them."""
        if not self.validation:
            return {}
        self.model.eval()
        parts = [[[item] for item in self.validation[i : i + 25]] for i in range(0, len(self.validation), 25)]
        losses = [self._next_token(*reply_states(self.inputs, rows), self.words_V) / _learned(rows) for rows in parts]
        self.model.train()
        return {self.validated: float(torch.stack(losses).mean())}

    def buffers(self) -> dict[str, Tensor]:
        """Of routers that learn; the biases of others stay as they are."""
        own = [(n, m) for n, m in self.model.named_modules() if isinstance(m, Router) and self._learns(m)]
        return {f"{n}.{name}": b for n, m in own for name, b in m.named_buffers() if name in ("bias_E", "p")}

    def _learns(self, router: Router) -> bool:
        return any(parameter.requires_grad for parameter in router.parameters())

    def export(self) -> dict[str, Tensor]:
        state = dict(portable(name, p.detach(), self.lora_scale) for name, p in self._trainable.items())
        return state | self.buffers()

    def _words_of(self, step: int) -> Tensor | None:
        """The words of a step's softmax: those of the data, and some at random."""
        if self.words_V is None:
            return None
        generator = torch.Generator().manual_seed(self.seed + step)
        extra = torch.randint(len(self.model.language.lm_head.weight), (self.sampled_words,), generator=generator)
        return torch.cat([self.words_V, extra]).unique()

    def _words(self) -> Tensor:
        """The ids that occur in any reply, sorted."""
        found = {word for source in self.sources for reply in source.replies() for word in reply}
        found.update(word for item in self.validation for reply in item.packed.replies for word in reply)
        return torch.tensor(sorted(found))


def reply_states(inputs: TrainingInputs, rows: Rows) -> tuple[Tensor, Tensor]:
    """The states `[R, D]` from which the reply tokens of all rows are predicted, and these `[R]`."""
    model = inputs.parts.model
    batch = pack([[item.packed for item in row] for row in rows], multiple=16).to(model.device)
    x_BTD = model.embed(batch.tokens_BT, inputs.visual([item.shown for row in rows for item in row]))
    hidden_BTD = model.language.hidden(
        x_BTD, positions_BT=batch.positions_BT, mask_BTS=batch.mask_BTT, real_BT=batch.real_BT
    )
    learned_BT = batch.labels_BT != IGNORE
    return hidden_BTD[learned_BT], batch.labels_BT[learned_BT]


def _learned(rows: Rows) -> int:
    """Tokens that are learned."""
    return sum(len(reply) for row in rows for item in row for reply in item.packed.replies)

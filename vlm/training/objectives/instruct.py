"""Captions and answers behind pictures: next-token loss on the replies of packed sequences, for any model.

B sequences, T tokens, R reply tokens of the batch, D language width, V words in the step's softmax.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.conversation.packing import IGNORE, Packed, pack, packed
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT, tidy
from vlm.datasets.caption_questions import questions
from vlm.datasets.examples import Example
from vlm.language.lora import portable
from vlm.language.mixture.statistics import step_statistics
from vlm.models.assembled import Assembled
from vlm.models.processor import Prompt
from vlm.training.features import Features
from vlm.training.inputs import TrainingInputs
from vlm.training.objectives.config import InstructObjective
from vlm.training.schedule import batches, mixture
from vlm.training.task import Figures, Task

if TYPE_CHECKING:
    from vlm.training.recipe import Recipe


@dataclass(frozen=True)
class Source:
    """Examples of one data set and what is made of them; question rows of one picture are already together."""

    examples: list[Example]
    use: Literal["captions", "caption_questions", "questions", "clips"]
    share: float
    branches: int


@dataclass(frozen=True)
class Item:
    """One sequence of a batch: its picture or clip, and its tokens."""

    example: Example
    prompt: Prompt
    packed: Packed
    flipped: bool


class InstructTask(Task):
    def __init__(
        self,
        parts: Assembled,
        sources: list[Source],
        validation: list[Example],
        features: Features | None,
        objective: InstructObjective,
        recipe: Recipe,
    ):
        self.model, self.processor, self.sources = parts.model, parts.processor, sources
        self.inputs = TrainingInputs(parts, features)
        self.mirror, self.seed, self.sampled_words = recipe.mirror, recipe.seed, objective.sampled_words
        self.lora_scale = objective.lora.alpha / objective.lora.rank if objective.lora is not None else 1.0
        sizes, shares = [len(s.examples) for s in sources], [s.share for s in sources]
        self.steps = batches(mixture(sizes, shares, recipe.steps * recipe.batch, recipe.seed), recipe.batch)
        self.validation = [self._item(Source([e], "captions", 1.0, 5), e, random.Random(0), False) for e in validation]
        self.words = self._words()
        named = dict(parts.model.named_parameters())
        self._routing: Figures = {}
        self._trainable = {name: p for name, p in named.items() if p.requires_grad}

    def trainable(self) -> dict[str, nn.Parameter]:
        return self._trainable

    def loss(self, step: int) -> Tensor:
        items = []
        for source, example, occurrence in self.steps[step]:
            rng = random.Random(f"{self.seed}/{source}/{example}/{occurrence}")
            chosen = self.sources[source]
            items.append(self._item(chosen, chosen.examples[example], rng, self.mirror))
        generator = torch.Generator().manual_seed(self.seed + step)
        table = self.model.language.lm_head.weight
        extra = torch.randint(len(table), (self.sampled_words,), generator=generator)
        words = torch.cat([self.words, extra]).unique() if self.sampled_words else torch.arange(len(table))
        return self._loss(items, words) + sum(self.model.language.router_losses().values())

    def _loss(self, items: list[Item], words_V: Tensor) -> Tensor:
        language = self.model.language
        batch = pack([item.packed for item in items], multiple=16).to(self.model.device)
        seen = self.inputs.visual([(item.example, item.prompt, item.flipped) for item in items])
        x_BTD = self.model.embed(batch.tokens_BT, seen)
        hidden_BTD = language.hidden(x_BTD, positions_BT=batch.positions_BT, mask_BTS=batch.mask_BTT)
        learned_BT = batch.labels_BT != IGNORE
        labels_R = batch.labels_BT[learned_BT]
        # A reply's word is always in the softmax, also one no caption says (a rule answers "gray" to "grey").
        words_V = torch.cat([words_V.to(labels_R.device), labels_R]).unique()
        bias_V = None if language.lm_head.bias is None else language.lm_head.bias[words_V]
        logits_RV = F.linear(hidden_BTD[learned_BT], language.lm_head.weight[words_V], bias_V).float()
        return F.cross_entropy(logits_RV, torch.searchsorted(words_V, labels_R))

    def after_step(self) -> None:
        self._routing = {**step_statistics(self.model.language.routers()).figures()}
        for router in self.model.language.routers():
            router.balance()

    def figures(self) -> Figures:
        return self._routing

    @torch.no_grad()
    def validate(self) -> Figures:
        """Loss a token over the data's own words, on the captions of the validation pictures; none without them."""
        if not self.validation:
            return {}
        self.model.eval()
        losses = [self._loss(self.validation[i : i + 25], self.words) for i in range(0, len(self.validation), 25)]
        self.model.train()
        return {"caption_loss": float(torch.stack(losses).mean())}

    def buffers(self) -> dict[str, Tensor]:
        return {name: b for name, b in self.model.named_buffers() if name.endswith(("router.bias_E", "router.p"))}

    def export(self) -> dict[str, Tensor]:
        state = dict(portable(name, p.detach(), self.lora_scale) for name, p in self._trainable.items())
        return state | self.buffers()

    def _item(self, source: Source, example: Example, rng: random.Random, mirror: bool) -> Item:
        flipped = False
        if source.use == "captions":
            pairs = [(CAPTION_PROMPT, tidy(caption)) for caption in example.captions]
        elif source.use == "clips":
            pairs = [(CLIP_PROMPT, tidy(caption)) for caption in example.captions]
        elif source.use == "caption_questions":
            pairs = questions(example.captions, rng, source.branches)
        else:
            pairs = list(example.meta["pairs"])
        pairs = pairs or [(CAPTION_PROMPT, tidy(example.captions[0]))]  # captions that support no question
        if len(pairs) > source.branches:
            pairs = rng.sample(pairs, source.branches)
        if mirror and source.use in ("captions", "caption_questions"):
            flipped = rng.random() < 0.5 and not any(_SIDE.search(text) for pair in pairs for text in pair)
        item = self.inputs.media(example, flipped)
        prompts = [self.inputs.prompt(item, question) for question, _ in pairs]
        replies = [self.processor.reply(text) for _, text in pairs]
        return Item(example, prompts[0], packed([prompt.ids for prompt in prompts], replies), flipped)

    def _words(self) -> Tensor:
        """The ids that occur in any reply of the sources, sorted."""
        found: set[int] = set()
        for source in self.sources:
            for example in source.examples:
                texts = [tidy(caption) for caption in example.captions]
                texts += [answer for _, answer in example.meta.get("pairs", [])]
                if source.use == "caption_questions":
                    texts = [word for caption in texts for word in caption.lower().split()] + ["yes", "no"]
                for text in texts:
                    found.update(self.processor.reply(text))
        for item in self.validation:
            for branch in item.packed.branches:
                found.update(branch.reply)
        return torch.tensor(sorted(found))


_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def by_picture(examples: list[Example]) -> list[Example]:
    """Question rows gathered by picture: one example each, its questions as `meta["pairs"]`."""
    pairs: dict[object, list[tuple[str, str]]] = {}
    first: dict[object, Example] = {}
    for example in examples:
        if example.question and example.answers:
            key = example.pictures or example.video
            first.setdefault(key, example)
            pairs.setdefault(key, []).append((example.question, example.answers[0]))
    return [e.model_copy(update={"meta": {"pairs": pairs[key]}}) for key, e in first.items()]

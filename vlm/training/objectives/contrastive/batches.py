"""Which pictures and texts a step sees: a function of the seed and the step alone."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vlm.alignment.negatives import hardest, swapped_words
from vlm.alignment.temporal import shuffled_orders
from vlm.datasets.examples import Example
from vlm.training.objectives.contrastive.config import ContrastiveObjective

SIDE = re.compile(r"\b(left|right)\b")


@dataclass(frozen=True)
class View:
    """A picture, or the frames of a clip, as a step shows it."""

    pictures: tuple[Path, ...]
    flipped: bool = False
    shuffled: tuple[int, ...] | None = None
    """Another order of the frames, which the texts are to like less."""


@dataclass(frozen=True)
class Batch:
    """I pictures (or clips), and T texts in the order of the pictures they came with."""

    picks: list[int]
    """Examples, `[I]`."""
    views: list[View]
    texts: list[tuple[int, int]]
    """Example and which of its texts, `[T]`."""
    rows: list[int]
    """The picture each text came with, `[T]`."""
    owners_T: Tensor
    """The picture each text describes; -1 is a text with swapped words."""

    def share(self, rank: int, processes: int) -> tuple[slice, slice]:
        """The pictures and texts that one of several processes encodes."""
        edges = [len(self.picks) * place // processes for place in (rank, rank + 1)]
        first, last = (sum(row < edge for row in self.rows) for edge in edges)
        return slice(*edges), slice(first, last)


class Batches:
    def __init__(
        self,
        examples: Sequence[Example],
        objective: ContrastiveObjective,
        *,
        batch: int,
        seed: int,
        mirror: bool,
        nearest: list[list[int]] | None = None,
    ):
        """`nearest` lists the examples in each example's way, as `mined` does."""
        self.examples, self.objective, self.seed, self.mirror, self.nearest = examples, objective, seed, mirror, nearest
        self.drawn = max(1, batch // (1 + objective.hard.nearest))
        self.epoch = max(1, len(examples) // self.drawn)
        self.texts = [self._texts(number, example) for number, example in enumerate(examples)]
        """Of each example its captions, then those with swapped words."""

    def __call__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.epoch)
        order = random.Random(f"{self.seed}/{epoch}").sample(range(len(self.examples)), len(self.examples))
        picks = self._with_mined(order[place * self.drawn : (place + 1) * self.drawn])
        rng = random.Random(f"{self.seed}/{step}")
        views, texts, rows, owners = [], [], [], []
        for row, pick in enumerate(picks):
            example = self.examples[pick]
            captions = example.captions
            chosen = rng.sample(range(len(captions)), min(self.objective.captions, len(captions)))
            sided = any(SIDE.search(captions[c]) for c in chosen)
            views.append(View(example.pictures, self.mirror and not sided and rng.random() < 0.5))
            texts += [(pick, c) for c in chosen]
            owners += [row] * len(chosen)
            swapped = [(pick, len(captions) + c) for c in chosen if self.objective.hard.swapped]
            swapped = [text for text in swapped if self.texts[pick][text[1]]]
            texts += swapped
            owners += [-1] * len(swapped)
            rows += [row] * (len(chosen) + len(swapped))
        if self.objective.clips is not None and self.objective.clips.order:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            orders = shuffled_orders(len(views), len(views[0].pictures), generator).tolist()
            views = [View(v.pictures, v.flipped, tuple(o)) for v, o in zip(views, orders, strict=True)]
        return Batch(picks, views, texts, rows, torch.tensor(owners))

    def _texts(self, number: int, example: Example) -> list[str]:
        """An empty text stands where no two words can change places."""
        captions = list(example.captions)
        if not self.objective.hard.swapped:
            return captions
        rngs = (random.Random(f"{self.seed}/{number}/{c}") for c in range(len(captions)))
        return captions + [swapped_words(text, rng) or "" for text, rng in zip(captions, rngs, strict=True)]

    def _with_mined(self, picks: list[int]) -> list[int]:
        """The pictures drawn, each followed by those in its way that are not in the batch yet."""
        if self.nearest is None:
            return picks
        here = set(picks)
        batch = []
        for pick in picks:
            near = [other for other in self.nearest[pick] if other not in here][: self.objective.hard.nearest]
            here.update(near)
            batch += [pick, *near]
        return batch


def mined(vectors_ND: Tensor, k: int, block: int = 1024) -> list[list[int]]:
    """For each of N vectors the others that are nearest, nearest first: three times `k`, since some will be taken."""
    unit_ND = torch.nn.functional.normalize(vectors_ND.float(), dim=-1)
    count = min(3 * k, len(unit_ND) - 1)
    rows: list[list[int]] = []
    for start in range(0, len(unit_ND), block):
        some = unit_ND[start : start + block]
        rows += hardest(some, unit_ND, torch.arange(start, start + len(some)), count).tolist()
    return rows

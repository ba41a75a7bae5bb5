"""Contrastive alignment: two heads over the frozen states of tower and text side, both computed once.

B pictures, C captions a picture, N patches, T words, D width.
"""

from __future__ import annotations

import random
import re

import torch
from torch import Tensor, nn

from vlm.alignment.losses import clip_loss, siglip_loss
from vlm.checkpoints.assemble import Assembled
from vlm.datasets.examples import Example
from vlm.datasets.features import Features
from vlm.heads.retrieval import Embedder
from vlm.metrics.retrieval import recall_at_k
from vlm.training.recipe import ContrastiveObjective, Recipe
from vlm.training.tasks import Figures, Say, Task


class ContrastiveTask(Task):
    """Each step matches a batch of pictures with some of their captions."""

    def __init__(
        self,
        parts: Assembled,
        objective: ContrastiveObjective,
        train: list[Example],
        validation: list[Example],
        features: Features,
        recipe: Recipe,
        say: Say,
    ):
        self.heads, self.objective, self.recipe = parts.model.alignment, objective, recipe
        self.train, self.validation, self.features = train, validation, features
        embedder = Embedder(parts)
        self.train_texts = _text_states(embedder, train, say)
        self.validation_texts = _text_states(embedder, validation, say)
        self.epoch = max(1, len(train) // recipe.batch)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {f"alignment.{name}": p for name, p in self.heads.named_parameters()}

    def loss(self, step: int) -> Tensor:
        epoch, place = divmod(step, self.epoch)
        order = random.Random(f"{self.recipe.seed}/{epoch}").sample(range(len(self.train)), len(self.train))
        picks = order[place * self.recipe.batch : (place + 1) * self.recipe.batch]
        rng = random.Random(f"{self.recipe.seed}/{step}")
        tokens, pooled, texts, owners = [], [], [], []
        for row, pick in enumerate(picks):
            example = self.train[pick]
            count = min(self.objective.captions, len(example.captions))
            chosen = rng.sample(range(len(example.captions)), count)
            sided = any(re.search(r"\b(left|right)\b", example.captions[c]) for c in chosen)
            flipped = self.recipe.mirror and not sided and rng.random() < 0.5
            tokens.append(self.features.tokens(example.pictures, flipped)[0])
            pooled.append(self.features.pooled(example.pictures, flipped)[0])
            texts += [self.train_texts[pick][c] for c in chosen]
            owners += [row] * count
        image_BD = self.heads.embed_images(torch.stack(tokens), torch.stack(pooled))
        text_TD = self.heads.embed_texts(*padded(texts))
        owner_T = torch.tensor(owners)
        if self.objective.loss == "siglip":
            return siglip_loss(image_BD, text_TD, owner_T, self.heads.scale, self.heads.bias)
        return clip_loss(image_BD, text_TD, owner_T, self.heads.scale)

    @torch.inference_mode()
    def validate(self) -> Figures:
        """Recall at 1 and 10 on the validation split, both ways."""
        self.heads.eval()
        images, texts, owners = [], [], []
        for start in range(0, len(self.validation), 200):
            pictures = [p for e in self.validation[start : start + 200] for p in e.pictures]
            tokens, pooled = self.features.tokens(pictures), self.features.pooled(pictures)
            images.append(self.heads.embed_images(tokens, pooled))
        for row, states in enumerate(self.validation_texts):
            texts.append(self.heads.embed_texts(*padded(states)))
            owners += [row] * len(states)
        self.heads.train()
        report = recall_at_k((torch.cat(texts) @ torch.cat(images).T).numpy(), owners, (1, 10))
        ways = {"text_to_image": report.text_to_image, "image_to_text": report.image_to_text}
        return {f"{way}_R@{k}": ranks.recall[k] for way, ranks in ways.items() for k in (1, 10)}

    def export(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.trainable().items()}


def padded(states: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Token states `[T_i, D]` as float32 `[B, T, D]` and the mask of the real ones."""
    tokens_BTD = nn.utils.rnn.pad_sequence(states, batch_first=True).float()
    lengths_B = torch.tensor([len(rows) for rows in states])
    return tokens_BTD, torch.arange(tokens_BTD.shape[1]) < lengths_B[:, None]


@torch.inference_mode()
def _text_states(embedder: Embedder, examples: list[Example], say: Say, batch: int = 128) -> list[list[Tensor]]:
    """The token states `[T, D]` of every caption, bfloat16, by example; texts of like length share a batch."""
    captions = [(number, caption) for number, example in enumerate(examples) for caption in example.captions]
    order = sorted(range(len(captions)), key=lambda i: len(captions[i][1]))
    states: dict[int, Tensor] = {}
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        with torch.autocast("cpu", torch.bfloat16):
            tokens_BTD, mask_BT = embedder.text_states([captions[i][1] for i in chunk])
        for i, tokens_TD, mask_T in zip(chunk, tokens_BTD, mask_BT, strict=True):
            states[i] = tokens_TD[mask_T].to(torch.bfloat16)
        if (start // batch) % 40 == 0:
            say(f"text states: {start} of {len(order)}")
    rows: list[list[Tensor]] = [[] for _ in examples]
    for i, (number, _) in enumerate(captions):
        rows[number].append(states[i])
    return rows

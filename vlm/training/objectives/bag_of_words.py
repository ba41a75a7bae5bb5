"""Align the projector with the language model's vocabulary, without running the language model.

Each visual token is compared with the embeddings of the vocabulary, and a word's logit is the log-sum-exp of its
similarities with the visual tokens. The target is the bag of words of the captions, weighted by inverse document
frequency (multi-label softmax, arXiv:1511.02251). The instruction stage starts from this projector.

B pictures, M visual tokens, D language width, V' words of the data.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.conversation.tokenizer import TextTokenizer
from vlm.datasets.examples import Example
from vlm.models.vision_language import VisionLanguageModel
from vlm.training.features import Features
from vlm.training.schedule import batches, mixture
from vlm.training.task import Figures, Task

if TYPE_CHECKING:
    from vlm.training.recipe import Recipe


class BagOfWordsTask(Task):
    def __init__(
        self,
        model: VisionLanguageModel,
        tokenizer: TextTokenizer,
        train: list[Example],
        validation: list[Example],
        features: Features,
        recipe: Recipe,
    ):
        self.model, self.features, self.mirror = model, features, recipe.mirror
        self.train, self.validation = train, validation
        bags = [_bag(tokenizer, example.captions) for example in train + validation]
        pictures_with = Counter(token for bag in bags[: len(train)] for token in bag)
        self.words = sorted(token for token, count in pictures_with.items() if count >= 5)
        place = {token: column for column, token in enumerate(self.words)}
        # Rare words say more about a picture than "a": inverse document frequency, as in CIDEr.
        weight = {token: torch.log(torch.tensor(len(train) / pictures_with[token])).item() for token in self.words}
        self.targets = torch.zeros(len(bags), len(self.words))
        for row, bag in enumerate(bags):
            for token, count in bag.items():
                if token in place:
                    self.targets[row, place[token]] = count * weight[token]
        self.targets /= self.targets.sum(dim=1, keepdim=True).clamp(min=1e-6)
        table = model.language.embedding.weight.detach().float()[self.words]
        self.table_VD = F.normalize(table - table.mean(dim=0), dim=-1)
        self.bias = nn.Parameter(torch.zeros(len(self.words), device=table.device))
        self.log_scale = nn.Parameter(torch.tensor(2.5, device=table.device))
        self.mean_norm = table.norm(dim=-1).mean()
        self.steps = batches(mixture([len(train)], [1.0], recipe.steps * recipe.batch, recipe.seed), recipe.batch)

    def trainable(self) -> dict[str, nn.Parameter]:
        named = {f"projector.{name}": p for name, p in self.model.projector.named_parameters()}
        # These names are in the learning rates of recipes and in the optimizer states of checkpoints.
        return named | {"words.bias": self.bias, "words.log_scale": self.log_scale}

    def loss(self, step: int) -> Tensor:
        picks = [example for _, example, _ in self.steps[step]]
        flipped = self.mirror and step % 2 == 1
        tokens_BND = self.features.tokens([_picture(self.train[i]) for i in picks], flipped)
        return self._loss(tokens_BND, self.targets[picks].to(self.table_VD.device))

    def _loss(self, tokens_BND: Tensor, targets_BV: Tensor) -> Tensor:
        visual_BMD = self.model.projector(
            tokens_BND.to(self.table_VD.device, next(self.model.projector.parameters()).dtype)
        ).float()
        scores_BMV = self.log_scale.exp() * F.normalize(visual_BMD, dim=-1) @ self.table_VD.T
        logits_BV = torch.logsumexp(scores_BMV, dim=1) + self.bias
        # Keep the length near a word's, so that the language model meets inputs of a size it knows.
        size = ((visual_BMD.norm(dim=-1) / self.mean_norm - 1) ** 2).mean()
        return -(targets_BV * logits_BV.log_softmax(dim=-1)).sum(dim=-1).mean() + size

    @torch.inference_mode()
    def validate(self) -> Figures:
        losses = []
        for start in range(0, len(self.validation), 200):
            tokens = self.features.tokens([_picture(e) for e in self.validation[start : start + 200]])
            rows = slice(len(self.train) + start, len(self.train) + start + len(tokens))
            losses.append(self._loss(tokens, self.targets[rows].to(self.table_VD.device)).item() * len(tokens))
        return {"words_loss": sum(losses) / len(self.validation)}

    def export(self) -> dict[str, Tensor]:
        return {f"projector.{name}": p.detach() for name, p in self.model.projector.named_parameters()}


def _picture(example: Example) -> Path:
    assert example.image is not None
    return example.image


def _bag(tokenizer: TextTokenizer, captions: tuple[str, ...]) -> Counter[int]:
    """How many captions say each token; a leading space makes a word at the start the same token as elsewhere."""
    counts: Counter[int] = Counter()
    for caption in captions:
        counts.update(set(tokenizer.encode(" " + caption.lower().strip(" ."))))
    return counts

"""Contrastive alignment: two heads learn one space for pictures, clips and texts; towers learn where they are unlocked.

I pictures, T texts, S shared width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vlm.alignment.cached_gradients import Encoder, backward_in_chunks
from vlm.alignment.gather import gather
from vlm.datasets.examples import Example
from vlm.metrics.retrieval import recall_at_k
from vlm.models.assemble import Assembled
from vlm.training.distributed import place
from vlm.training.objectives.contrastive.batches import Batch, Batches, View
from vlm.training.objectives.contrastive.sides import Images, Texts
from vlm.training.objectives.contrastive.terms import Term, Vectors, Written
from vlm.training.task import Figures, Task


class ContrastiveTask(Task):
    """Each step matches a batch of pictures with some of their captions.

    Of several processes each encodes its share of the batch and computes the loss of all of it.
    """

    def __init__(
        self,
        parts: Assembled,
        batches: Batches,
        images: Images,
        texts: Texts,
        terms: Sequence[Term],
        written: Written | None,
        validation: list[Example],
        validation_texts: Texts,
        cached: int | None,
    ):
        assert parts.model.alignment is not None
        self.parts, self.heads, self.batches = parts, parts.model.alignment, batches
        self.images, self.texts, self.terms, self.written = images, texts, terms, written
        self.validation, self.validation_texts, self.cached = validation, validation_texts, cached
        self._figures: Figures = {}

    def trainable(self) -> dict[str, nn.Parameter]:
        """What needs gradients: the heads, and by the recipe projector, text encoder (`text_encoder.`) and tower."""
        found = {f"alignment.{name}": p for name, p in self.heads.named_parameters()}
        found |= {name: p for name, p in self.parts.model.named_parameters() if p.requires_grad}
        if self.parts.text_encoder is not None:
            own = self.parts.text_encoder.named_parameters()
            found |= {f"text_encoder.{name}": p for name, p in own if p.requires_grad}
        return found

    def loss(self, step: int) -> Tensor:
        batch = self.batches(step)
        views, texts = self._share(batch)
        total = self._matched(batch, self.images(views), self.texts(texts))
        return total if self.written is None else total + self._writing(batch)

    def backward(self, step: int) -> Tensor:
        if self.cached is None:
            return super().backward(step)
        batch = self.batches(step)
        views, texts = self._share(batch)
        sides: list[tuple[Encoder, list[Any]]] = [
            (self.images, [views[start : start + self.cached] for start in range(0, len(views), self.cached)]),
            (self.texts, [texts[start : start + self.cached] for start in range(0, len(texts), self.cached)]),
        ]
        total = backward_in_chunks(sides, lambda images, texts: self._matched(batch, images, texts))
        if self.written is not None:
            writing = self._writing(batch)
            writing.backward()
            total = total + writing.detach()
        return total

    def _share(self, batch: Batch) -> tuple[list[View], list[tuple[int, int]]]:
        pictures, texts = batch.share(*place())
        return batch.views[pictures], batch.texts[texts]

    def _matched(self, batch: Batch, images: Tensor, texts: Tensor) -> Tensor:
        """The terms' sum, of the vectors that this process encoded and those of the others."""
        image_IS, text_TS = gather(images), gather(texts)
        shuffled_IS = None
        if batch.views[0].shuffled is not None:
            image_IS, shuffled_IS = image_IS.chunk(2, dim=-1)
        vectors = Vectors(image_IS, text_TS, shuffled_IS)
        values = {term.name: term(batch, vectors) for term in self.terms}
        self._figures = {name: value.item() for name, value in values.items()} if len(values) > 1 else {}
        weighed = [term.weight * values[term.name] for term in self.terms]
        return sum(weighed[1:], weighed[0])

    def _writing(self, batch: Batch) -> Tensor:
        assert self.written is not None
        value = self.written(batch)
        self._figures["caption_loss"] = value.item()
        return self.written.weight * value

    def figures(self) -> Figures:
        """The addends of the last step's loss, where there are several, and what similarities are scaled by."""
        learned: Figures = {"scale": self.heads.scale.item()}
        if any(term.name == "siglip_loss" for term in self.terms):
            learned["bias"] = self.heads.shift.item()
        return self._figures | learned

    @torch.inference_mode()
    def validate(self) -> Figures:
        """Recall at 1 and 10 on the validation split, both ways."""
        self.heads.eval()
        images, texts, owners = [], [], []
        for start in range(0, len(self.validation), 200):
            images.append(self.images([View(e.pictures) for e in self.validation[start : start + 200]]))
        for row, example in enumerate(self.validation):
            texts.append(self.validation_texts([(row, number) for number in range(len(example.captions))]))
            owners += [row] * len(example.captions)
        self.heads.train()
        report = recall_at_k((torch.cat(texts) @ torch.cat(images).T).cpu().numpy(), owners, (1, 10))
        ways = {"text_to_image": report.text_to_image, "image_to_text": report.image_to_text}
        return {f"{way}_R@{k}": ranks.recall[k] for way, ranks in ways.items() for k in (1, 10)}

    def export(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.trainable().items()}

"""What a contrastive step adds up: each a small class that owns its loss and what it needs of the batch.

I pictures, T texts, S shared width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.alignment.chunked import chunked_clip_loss, chunked_siglip_loss
from vlm.alignment.dual_encoder import DualHeads
from vlm.alignment.losses import clip_loss, distillation_loss, frame_order_loss, siglip_loss
from vlm.alignment.matryoshka import matryoshka_loss
from vlm.conversation.packing import packed
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT, tidy
from vlm.engine.likelihood import log_likelihoods
from vlm.media.images import load_image
from vlm.media.open import Media
from vlm.models.assembled import Assembled
from vlm.models.dual_encoders import Pair
from vlm.training.inputs import BLANK
from vlm.training.objectives.contrastive.batches import Batch
from vlm.training.objectives.contrastive.config import ContrastiveObjective
from vlm.training.objectives.contrastive.sides import Images
from vlm.training.task import Log


@dataclass(frozen=True)
class Vectors:
    """Of a whole batch, whatever process encoded them."""

    image_IS: Tensor
    text_TS: Tensor
    shuffled_IS: Tensor | None = None
    """Of the clips with their frames in another order."""


class Term(ABC):
    """One addend of the loss: a function of the batch's vectors."""

    name: str
    weight: float = 1.0

    @abstractmethod
    def __call__(self, batch: Batch, vectors: Vectors) -> Tensor: ...


class Matching(Term):
    """CLIP's loss or SigLIP's, at every width, a few rows at a time where the recipe says so."""

    def __init__(self, heads: DualHeads, objective: ContrastiveObjective):
        self.heads, self.kind, self.chunk, self.widths = heads, objective.loss, objective.chunk, objective.widths
        self.name = f"{objective.loss}_loss"

    def __call__(self, batch: Batch, vectors: Vectors) -> Tensor:
        def loss(image_IS: Tensor, text_TS: Tensor) -> Tensor:
            inputs = image_IS, text_TS, batch.owners_T, self.heads.scale
            if self.kind == "siglip":
                shift = self.heads.shift
                if self.chunk is None:
                    return siglip_loss(*inputs, shift)
                return chunked_siglip_loss(*inputs, shift, self.chunk)
            return clip_loss(*inputs) if self.chunk is None else chunked_clip_loss(*inputs, self.chunk)

        if not self.widths:
            return loss(vectors.image_IS, vectors.text_TS)
        return matryoshka_loss(loss, vectors.image_IS, vectors.text_TS, self.widths)


class FrameOrder(Term):
    """A clip's first text prefers it to its frames in another order."""

    name = "frame_order_loss"

    def __init__(self, heads: DualHeads, weight: float):
        self.heads, self.weight = heads, weight

    def __call__(self, batch: Batch, vectors: Vectors) -> Tensor:
        assert vectors.shuffled_IS is not None
        first_I = torch.tensor([batch.rows.index(row) for row in range(len(batch.picks))])
        return frame_order_loss(vectors.image_IS, vectors.shuffled_IS, vectors.text_TS[first_I], self.heads.scale)


class Distilled(Term):
    """A teacher's similarities of the batch. Its vectors are computed once, of the pictures as they are: a mirrored
    picture is to be matched as its original."""

    name = "distillation_loss"

    def __init__(
        self,
        heads: DualHeads,
        teacher: Pair,
        pictures: Sequence[Sequence[object]],
        texts: list[list[str]],
        weight: float,
        log: Log,
    ):
        """`pictures` are the files of each example, `texts` what is said of it."""
        self.heads, self.scale, self.weight = heads, teacher.scale, weight
        rows, said = [], []
        for number, (files, own) in enumerate(zip(pictures, texts, strict=True)):
            frames_FS = teacher.embed_images([load_image(file) for file in files])  # type: ignore[arg-type]
            rows.append(torch.nn.functional.normalize(frames_FS.mean(dim=0), dim=-1))
            said.append(teacher.embed_texts([text or " " for text in own]))
            if number % 500 == 0:
                log(f"teacher: {number} of {len(texts)}")
        self.image_NS, self.texts = torch.stack(rows).clone(), [own.clone() for own in said]

    def __call__(self, batch: Batch, vectors: Vectors) -> Tensor:
        text_TS = torch.stack([self.texts[row][number] for row, number in batch.texts])
        teacher_TI = (self.scale * text_TS @ self.image_NS[batch.picks].T).to(vectors.text_TS.device)
        return distillation_loss(self.heads.scale * vectors.text_TS @ vectors.image_IS.T, teacher_TI)


class Written:
    """The captions of some of the batch's pictures as the language model writes them: nats a token."""

    name = "caption_loss"

    def __init__(self, parts: Assembled, images: Images, texts: list[list[str]], weight: float, pictures: int):
        self.model, self.processor, self.images, self.texts = parts.model, parts.processor, images, texts
        self.weight, self.pictures = weight, pictures

    def __call__(self, batch: Batch) -> Tensor:
        views = batch.views[: self.pictures]
        patches_IND, _ = self.images.states(views)
        sequences, seen = [], []
        for row, (view, own) in enumerate(
            zip(views, patches_IND.split([len(view.pictures) for view in views]), strict=True)
        ):
            example, number = batch.texts[batch.rows.index(row)]
            frames = len(view.pictures)
            item = Media((BLANK,) * frames, tuple(map(float, range(frames))) if frames > 1 else (), timed=False)
            prompt = self.processor.prompt(
                self.processor.user_messages(CLIP_PROMPT if frames > 1 else CAPTION_PROMPT, item), [item]
            )
            sequences.append(packed([prompt.ids], [self.processor.reply(tidy(self.texts[example][number]))]))
            seen.append(self.model.project(own, prompt.layouts[0].grids[0]))
        return -torch.cat(log_likelihoods(self.model, sequences, seen)).mean()

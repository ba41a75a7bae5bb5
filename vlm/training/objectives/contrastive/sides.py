"""The two sides of a batch as vectors of the shared space: from states computed once, or through towers that learn.

B rows, F frames, N patches, T words, D width, S shared width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from vlm.alignment.dual_encoder import DualHeads
from vlm.heads.retrieval import Embedder
from vlm.media.images import load_image
from vlm.models.vision_language import VisionLanguageModel
from vlm.training.features import Features
from vlm.training.objectives.contrastive.batches import View
from vlm.training.task import Log


class Images(ABC):
    """Pictures and clips. Frames of one clip go through the tower as pictures do."""

    def __init__(self, heads: DualHeads):
        self.heads = heads

    @abstractmethod
    def states(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Patch tokens `[pictures, N, D]` and pooled vectors `[pictures, D]`, frame after frame."""

    def __call__(self, views: Sequence[View]) -> Tensor:
        """Unit vectors `[B, S]`; `[B, 2 S]` where frames are shuffled too, those of the shuffled clips behind."""
        tokens_BND, pooled_BD = (states.to(self.heads.log_scale.device) for states in self.states(views))
        vectors = self.heads.embed_images(tokens_BND, pooled_BD)
        if self.heads.temporal is None:
            return vectors
        frames_BFS = vectors.unflatten(0, (len(views), -1))
        clips_BS = self.heads.embed_frames(frames_BFS)
        if views[0].shuffled is None:
            return clips_BS
        order_BF = torch.tensor([view.shuffled for view in views], device=frames_BFS.device)
        shuffled_BFS = frames_BFS.gather(1, order_BF[..., None].expand_as(frames_BFS))
        return torch.cat([clips_BS, self.heads.embed_frames(shuffled_BFS)], dim=-1)


class FrozenImages(Images):
    def __init__(self, heads: DualHeads, features: Features):
        super().__init__(heads)
        self.features = features

    def states(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        tokens = [self.features.tokens(view.pictures, view.flipped) for view in views]
        pooled = [self.features.pooled(view.pictures, view.flipped) for view in views]
        return torch.cat(tokens), torch.cat(pooled)


class LearningImages(Images):
    def __init__(self, model: VisionLanguageModel):
        assert model.alignment is not None
        assert model.tower is not None
        super().__init__(model.alignment)
        self.tower = model.tower

    def states(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        images = [(load_image(path), view.flipped) for view in views for path in view.pictures]
        flip = Image.Transpose.FLIP_LEFT_RIGHT
        shown = [image.transpose(flip) if flipped else image for image, flipped in images]
        output = self.tower(self.tower.preprocess(shown).to(self.heads.log_scale.device))
        return output.tokens_BND, output.pooled_BD


class Texts(ABC):
    """Texts by example and number within it."""

    @abstractmethod
    def __call__(self, texts: Sequence[tuple[int, int]]) -> Tensor:
        """Unit vectors `[B, S]`."""


class FrozenTexts(Texts):
    def __init__(self, embedder: Embedder, rows: list[list[str]], log: Log):
        self.heads, self.states = embedder.alignment, _text_states(embedder, rows, log)

    def __call__(self, texts: Sequence[tuple[int, int]]) -> Tensor:
        tokens_BTD, mask_BT = padded([self.states[row][number] for row, number in texts])
        device = self.heads.log_scale.device
        return self.heads.embed_texts(tokens_BTD.to(device), mask_BT.to(device))


class LearningTexts(Texts):
    def __init__(self, embedder: Embedder, rows: list[list[str]]):
        self.embedder, self.rows = embedder, rows

    def __call__(self, texts: Sequence[tuple[int, int]]) -> Tensor:
        states = self.embedder.text_states([self.rows[row][number] for row, number in texts])
        return self.embedder.alignment.embed_texts(*states)


def padded(states: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Token states `[T_i, D]` as float32 `[B, T, D]` and the mask of the real ones."""
    tokens_BTD = nn.utils.rnn.pad_sequence(states, batch_first=True).float()
    lengths_B = torch.tensor([len(rows) for rows in states])
    return tokens_BTD, torch.arange(tokens_BTD.shape[1]) < lengths_B[:, None]


@torch.inference_mode()
def _text_states(embedder: Embedder, rows: list[list[str]], log: Log, batch: int = 128) -> list[list[Tensor]]:
    """The token states `[T, D]` of every text, bfloat16; texts of like length share a batch. An empty one has none."""
    texts = [(number, text) for number, row in enumerate(rows) for text in row]
    order = sorted((i for i in range(len(texts)) if texts[i][1]), key=lambda i: len(texts[i][1]))
    states: dict[int, Tensor] = {}
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        with torch.autocast(embedder.alignment.log_scale.device.type, torch.bfloat16):
            tokens_BTD, mask_BT = (states.cpu() for states in embedder.text_states([texts[i][1] for i in chunk]))
        for i, tokens_TD, mask_T in zip(chunk, tokens_BTD, mask_BT, strict=True):
            states[i] = tokens_TD[mask_T].to(torch.bfloat16)
        if (start // batch) % 40 == 0:
            log(f"text states: {start} of {len(order)}")
    kept: list[list[Tensor]] = [[] for _ in rows]
    for i, (number, _) in enumerate(texts):
        kept[number].append(states.get(i, torch.zeros(0)))
    return kept

"""Retrieval: pictures, clips and texts as unit vectors of one space; the nearest match.

B rows, F frames, N patches, D tower width, S shared width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlm.errors import BadInput
from vlm.heads.vqa import batched
from vlm.language.decoder import LanguageModel
from vlm.media.open import Media
from vlm.models.assemble import Assembled
from vlm.models.dual_encoders import Pair
from vlm.vectors import Vectors

MAX_TOKENS = 64
"""Of a text that the decoder reads."""


class Embedder:
    """The dual encoder: inner products of its vectors are similarities in [-1, 1]."""

    def __init__(self, assembled: Assembled):
        self.model, self.text_encoder = assembled.model, assembled.text_encoder
        self.tokenizer = assembled.tokenizer

    @property
    def width(self) -> int:
        return self.model.cfg.alignment.width

    @torch.inference_mode()
    def embed_media(self, media: Sequence[Media], *, batch: int = 16) -> Vectors:
        """Unit vectors `[B, S]`; a clip's is the mean of its frames', or what a model of clips makes of them."""
        rows: list[Tensor] = []
        for chunk in batched(media, batch):
            output = self.model.tower(self.model.tower.preprocess([f for item in chunk for f in item.frames]))
            vectors = self.model.alignment.embed_images(output.tokens_BND, output.pooled_BD)
            frames = vectors.split([len(item.frames) for item in chunk])
            for item, vectors_FS in zip(chunk, frames, strict=True):
                if item.is_clip and self.model.alignment.temporal is not None:
                    rows.append(self.model.alignment.embed_frames(vectors_FS[None])[0])
                else:
                    rows.append(torch.nn.functional.normalize(vectors_FS.mean(dim=0), dim=-1))
        return _array(rows, self.width)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], *, batch: int = 64) -> Vectors:
        """Unit vectors `[B, S]`. Raises `BadInput` for an empty text."""
        refuse_empty(texts)
        rows: list[Tensor] = []
        for chunk in batched(texts, batch):
            rows += self.model.alignment.embed_texts(*self.text_states(list(chunk)))
        return _array(rows, self.width)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of each text those that are read."""
        if self.text_encoder is not None:
            return [len(ids) for ids in self.text_encoder.tokens(list(texts))]
        return [len(ids[:MAX_TOKENS]) for ids in self.tokenizer.encode_batch(list(texts))]

    def text_states(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token states `[B, T, D]` and mask `[B, T]` of the text side: the sentence encoder's, or the decoder's."""
        if self.text_encoder is not None:
            return tuple(self.text_encoder(texts))
        return language_states(self.model.language, self.tokenizer.encode_batch(texts))


class PairEmbedder:
    """A published dual encoder; it was made for pictures, and a clip's vector is the mean of its frames'."""

    def __init__(self, pair: Pair):
        self.pair = pair

    def embed_media(self, media: Sequence[Media], *, batch: int = 16) -> Vectors:
        """Unit vectors `[B, S]`."""
        rows: list[Tensor] = []
        for chunk in batched(media, batch):
            vectors = self.pair.embed_images([frame for item in chunk for frame in item.frames])
            frames = vectors.split([len(item.frames) for item in chunk])
            rows += [torch.nn.functional.normalize(v.mean(dim=0), dim=-1) for v in frames]
        return _array(rows, 0)

    def embed_texts(self, texts: Sequence[str], *, batch: int = 64) -> Vectors:
        """Unit vectors `[B, S]`. Raises `BadInput` for an empty text."""
        refuse_empty(texts)
        return _array([row for chunk in batched(texts, batch) for row in self.pair.embed_texts(chunk)], 0)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of each text those that are read."""
        return self.pair.count_tokens(texts)


def refuse_empty(texts: Sequence[str]) -> None:
    """Raise `BadInput` that says which of the texts has no words."""
    for number, text in enumerate(texts):
        if not text.strip():
            raise BadInput(f"text {number + 1} is empty; expected some words")


def language_states(
    language: LanguageModel, rows: list[list[int]], max_tokens: int = MAX_TOKENS
) -> tuple[Tensor, Tensor]:
    """The decoder's last states of each text's tokens, right-padded (causal: padding is never looked at)."""
    rows = [ids[:max_tokens] for ids in rows]
    longest = max(len(ids) for ids in rows)
    tokens_BT = torch.tensor([ids + [0] * (longest - len(ids)) for ids in rows])
    mask_BT = torch.tensor([[True] * len(ids) + [False] * (longest - len(ids)) for ids in rows])
    return language.hidden(language.embedding(tokens_BT)), mask_BT


def _array(rows: list[Tensor], width: int) -> Vectors:
    return torch.stack(rows).float().numpy() if rows else np.zeros((0, width), dtype=np.float32)

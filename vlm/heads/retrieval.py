"""Retrieval: pictures, clips and texts as unit vectors of one space.

B rows, F frames, N patches, T tokens, D width of the states, S shared width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vlm.alignment.dual_encoder import DualHeads
from vlm.conversation.texts import check_texts
from vlm.errors import BadInput, VlmError
from vlm.heads.writer import batched
from vlm.media.open import Media
from vlm.vectors import Vectors

if TYPE_CHECKING:
    from PIL import Image

    from vlm.alignment.text_encoder import TextEncoder
    from vlm.conversation.tokenizer import TextTokenizer, TextTokens
    from vlm.language.decoder import LanguageModel
    from vlm.models.assembled import Assembled
    from vlm.models.dual_encoders import Pair
    from vlm.vision.tower import TowerOutput, VisionTower

MAX_TOKENS = 64
"""Of a text that the decoder reads."""


class Embeds(Protocol):
    """Pictures and clips, and texts, as vectors of one space: inner products are similarities in [-1, 1]."""

    @property
    def scale(self) -> float:
        """What similarities are multiplied by before a softmax over them: the learned inverse temperature."""

    def embed_media(self, media: Sequence[Media], *, batch: int = 16) -> Vectors:
        """Unit vectors `[B, S]`."""

    def embed_texts(self, texts: Sequence[str], *, batch: int = 64) -> Vectors:
        """Unit vectors `[B, S]`. Raises `BadInput` for an empty text."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of each text those that are read."""

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        """What is lost of each text: what is beyond the tokens that are read, words that are not known."""


class Embedder:
    """Two heads over a tower and a text side, of which one may be left out where it is not needed."""

    def __init__(
        self,
        alignment: DualHeads,
        tower: VisionTower | None,
        texts: TextEncoder | tuple[LanguageModel, TextTokenizer] | None,
    ):
        """`texts` are read by a sentence encoder, or by the language model itself."""
        self.alignment, self.tower, self.texts = alignment, tower, texts

    @classmethod
    def of(cls, parts: Assembled) -> Embedder | None:
        """The embedder of a model that has a space."""
        model = parts.model
        if model.alignment is None:
            return None
        return cls(model.alignment, model.tower, parts.text_encoder or (model.language, parts.tokenizer))

    @property
    def width(self) -> int:
        return self.alignment.width

    @property
    def scale(self) -> float:
        return float(self.alignment.scale)

    @torch.inference_mode()
    def embed_media(self, media: Sequence[Media], *, batch: int = 16) -> Vectors:
        """Unit vectors `[B, S]`; a clip's is the mean of its frames', or what a model of clips makes of them."""
        rows: list[Tensor] = []
        for chunk in batched(media, batch):
            vectors = self._frames([frame for item in chunk for frame in item.frames])
            frames = vectors.split([len(item.frames) for item in chunk])
            for item, vectors_FS in zip(chunk, frames, strict=True):
                if item.is_clip and self.alignment.temporal is not None:
                    rows.append(self.alignment.embed_frames(vectors_FS[None])[0])
                else:
                    rows.append(F.normalize(vectors_FS.mean(dim=0), dim=-1))
        return _array(rows, self.width)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], *, batch: int = 64) -> Vectors:
        """Unit vectors `[B, S]`. Raises `BadInput` for an empty text."""
        check_texts(texts)
        rows: list[Tensor] = []
        for chunk in batched(texts, batch):
            rows += self.alignment.embed_texts(*self.text_states(list(chunk)))
        return _array(rows, self.width)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of each text those that are read."""
        return [tokens.read for tokens in self._text_tokens(texts)]

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        """What is lost of each text."""
        return [tokens.notes() for tokens in self._text_tokens(texts)]

    def _text_tokens(self, texts: Sequence[str]) -> list[TextTokens]:
        check_texts(texts)
        side = self._text_side()
        if isinstance(side, tuple):
            return side[1].text_tokens(list(texts), MAX_TOKENS)
        return side.text_tokens(list(texts))

    def text_states(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token states `[B, T, D]` and mask `[B, T]` of the text side: the sentence encoder's, or the decoder's."""
        side = self._text_side()
        if not isinstance(side, tuple):
            return tuple(side(texts))
        return language_states(side[0], side[1].encode_batch(texts))

    def _text_side(self) -> TextEncoder | tuple[LanguageModel, TextTokenizer]:
        if self.texts is None:
            raise BadInput("only the pictures' side of this model is loaded; expected it loaded whole, or for texts")
        return self.texts

    def _frames(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors `[F, S]`."""
        if self.tower is None:
            raise BadInput("only the texts' side of this model is loaded; expected it loaded whole, or for pictures")
        if self.tower.cfg.budget is None:
            return self._embedded(self._looked(images))
        # Each picture has its own shape; alone it has no padding that would have to be masked.
        return torch.cat([self._embedded(self._looked([image])) for image in images])

    def _looked(self, images: Sequence[Image.Image]) -> TowerOutput:
        assert self.tower is not None
        like = next(self.tower.parameters())
        return self.tower(self.tower.preprocess(images).to(like.device, like.dtype))

    def _embedded(self, output: TowerOutput) -> Tensor:
        return self.alignment.embed_images(output.tokens_BND, output.pooled_BD)


class PairEmbedder:
    """A published dual encoder; it was made for pictures, and a clip's vector is the mean of its frames'."""

    def __init__(self, pair: Pair):
        self.pair = pair

    @property
    def scale(self) -> float:
        return self.pair.scale

    def embed_media(self, media: Sequence[Media], *, batch: int = 16) -> Vectors:
        """Unit vectors `[B, S]`."""
        rows: list[Tensor] = []
        for chunk in batched(media, batch):
            vectors = self.pair.embed_images([frame for item in chunk for frame in item.frames])
            frames = vectors.split([len(item.frames) for item in chunk])
            rows += [F.normalize(v.mean(dim=0), dim=-1) for v in frames]
        return _array(rows, 0)

    def embed_texts(self, texts: Sequence[str], *, batch: int = 64) -> Vectors:
        """Unit vectors `[B, S]`. Raises `BadInput` for an empty text."""
        check_texts(texts)
        return _array([row for chunk in batched(texts, batch) for row in self.pair.embed_texts(chunk)], 0)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of each text those that are read."""
        check_texts(texts)
        return [tokens.read for tokens in self.pair.text_tokens(texts)]

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        """What is lost of each text."""
        check_texts(texts)
        return [tokens.notes() for tokens in self.pair.text_tokens(texts)]


def language_states(
    language: LanguageModel, rows: list[list[int]], max_tokens: int = MAX_TOKENS
) -> tuple[Tensor, Tensor]:
    """The decoder's last states of each text's tokens, right-padded (causal: padding is never looked at)."""
    rows = [ids[:max_tokens] for ids in rows]
    longest = max(len(ids) for ids in rows)
    device = language.embedding.weight.device
    tokens_BT = torch.tensor([ids + [0] * (longest - len(ids)) for ids in rows], device=device)
    mask_BT = torch.tensor([[True] * len(ids) + [False] * (longest - len(ids)) for ids in rows], device=device)
    return language.hidden(language.embedding(tokens_BT)), mask_BT


def _array(rows: list[Tensor], width: int) -> Vectors:
    if not rows:
        return np.zeros((0, width), dtype=np.float32)
    vectors_BS = torch.stack(rows).float().cpu().numpy()
    if not np.isfinite(vectors_BS).all():
        raise VlmError(
            "expected finite vectors, the model gives NaN: its weights are damaged, or too large for its type"
        )
    return vectors_BS

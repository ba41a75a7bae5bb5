"""Published models behind the facade's interface: what their authors' folders hold, and what they cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from vlm.conversation.budget import TokenBudget
from vlm.engine.greedy import greedy_tiled
from vlm.errors import BadInput
from vlm.facade import Model
from vlm.families.published import Published, TilesByContent
from vlm.heads.chat import ChatHead
from vlm.heads.retrieval import PairEmbedder
from vlm.media.open import MediaSource
from vlm.media.video.sampling.base import Sampler
from vlm.models.dual_encoders import Pair
from vlm.models.trained import weights_hash
from vlm.vectors import Vectors


class DualEncoder(Model):
    """A contrastive checkpoint as its authors publish it: vectors of pictures, clips and texts; it writes nothing."""

    def __init__(self, pair: Pair, name: str):
        self._name, self.pair, self.embedder = name, pair, PairEmbedder(pair)

    @property
    def name(self) -> str:
        return self._name

    def weights_hash(self) -> str:
        return weights_hash([self.pair])

    @property
    def similarity_scale(self) -> float:
        return self.pair.scale

    def caption(self, inputs: Sequence[MediaSource], **options: Any) -> NoReturn:
        """Raises `BadInput`: there is no language model."""
        raise BadInput(f"model {self.name} only compares pictures and texts; expected one that writes, like nano")

    def answer(self, inputs: Sequence[MediaSource], questions: Sequence[str], **options: Any) -> NoReturn:
        """Raises `BadInput`, as `caption`."""
        self.caption(inputs)

    def match(self, inputs: Sequence[MediaSource], texts: Sequence[str], **options: Any) -> NoReturn:
        """Raises `BadInput`, as `caption`."""
        self.caption(inputs)

    def expert_use(self, inputs: Sequence[MediaSource]) -> NoReturn:
        """Raises `BadInput`, as `caption`."""
        self.caption(inputs)


class PublishedModel(Model):
    """A vision-language model as its authors publish it: captions, answers, and the model itself underneath.

    `processor(messages, images)` gives `input_ids [1, T]`, `pixels [tiles, 3, H, W]` and `grids [images, 2]` (tiles
    wide, tiles high, or what the family's processor says), which are the arguments of `logits` and `generate`.
    """

    def __init__(self, published: Published, name: str):
        self._published, self._name = published, name
        self.model, self.processor = published.model, published.processor
        if isinstance(self.processor, TilesByContent) and self.processor.tiling.by == "content":
            self.settings = {"tiling": self.processor.tiling.model_dump_json()}
        self.captioner = self.answerer = self._head = ChatHead(published)

    @property
    def name(self) -> str:
        return self._name

    def weights_hash(self) -> str:
        return weights_hash([self.model])

    def count(
        self, messages: Sequence[Mapping[str, Any]], images: Sequence[Any] | None = None, *, max_tokens: int = 64
    ) -> TokenBudget:
        """What a conversation costs in tokens: what `processor(messages, images)` makes of it, and a reply."""
        return self._head.count(self.processor(messages, images), max_tokens)

    @torch.inference_mode()
    def logits(self, input_ids: Any, pixels: Any = None, grids: Any = None, *, mask: Any = None) -> Tensor:
        """float32 `[B, T, V]` for ids `[B, T]` with an image token at each slot.

        `pixels` are the tiles of all pictures in reading order, `grids` says how many of them each picture has.
        `mask [B, T]` is false (or 0) at padding; by default at the padding a sequence begins with. The logits of
        padding mean nothing. Raises `BadInput` where ids, pixels and grids do not fit together.
        """
        return self.model(*self._inputs(input_ids, pixels, grids, mask)).float()

    def generate(
        self, input_ids: Any, pixels: Any = None, grids: Any = None, *, mask: Any = None, max_tokens: int = 64
    ) -> list[list[int]]:
        """The most likely tokens after each row of a batch padded on the left, without the token that ends a reply."""
        tokens_BT, pixels, grids, real_BT = self._inputs(input_ids, pixels, grids, mask)
        return greedy_tiled(
            self.model, tokens_BT, pixels, grids, real_BT=real_BT, stop=self._published.stop, max_tokens=max_tokens
        )

    def embed_images(
        self, inputs: Sequence[MediaSource], *, sampling: Sampler | None = None, width: int | None = None
    ) -> Vectors:
        """Raises `BadInput`: published models of this kind have no space that pictures and texts share."""
        raise BadInput(f"model {self.name} has no space that pictures and texts share; expected one like nano's")

    def embed_texts(self, texts: Sequence[str], *, width: int | None = None) -> Vectors:
        """Raises `BadInput`, as `embed_images`."""
        return self.embed_images([])

    @property
    def similarity_scale(self) -> float:
        """Raises `BadInput`, as `embed_images`."""
        return float(self.embed_images([])[0, 0])

    def _inputs(self, input_ids: Any, pixels: Any, grids: Any, mask: Any) -> tuple[Any, ...]:
        device = self.model.language.embedding.weight.device
        tokens_BT = torch.as_tensor(input_ids, device=device).long()
        if tokens_BT.ndim != 2 or tokens_BT.numel() == 0:
            raise BadInput(f"input_ids: expected [B, T], got {list(tokens_BT.shape)}")
        vocabulary = self.model.language.cfg.vocab_size
        if tokens_BT.min() < 0 or tokens_BT.max() >= vocabulary:
            low, high = tokens_BT.min().item(), tokens_BT.max().item()
            raise BadInput(f"input_ids: expected ids of 0 to {vocabulary - 1}, got {low} to {high}")
        if (pixels is None) != (grids is None):
            raise BadInput("pixels and grids: expected both or neither")
        if grids is not None:
            pixels, grids = torch.as_tensor(pixels), torch.as_tensor(grids).long()
            if pixels.ndim < 4:
                raise BadInput(f"pixels: expected [tiles, 3, H, W], got {list(pixels.shape)}")
            if grids.shape[-1:] != (2,):
                raise BadInput(f"grids: expected [pictures, 2], got {list(grids.shape)}")
            pixels, grids = pixels.flatten(0, -4), grids.reshape(-1, 2)  # a batch's axis before them does no harm
        real_BT = None if mask is None else torch.as_tensor(mask, device=device).bool()
        if real_BT is not None and real_BT.shape != tokens_BT.shape:
            raise BadInput(f"mask: expected {list(tokens_BT.shape)}, got {list(real_BT.shape)}")
        return tokens_BT, pixels, grids, real_BT

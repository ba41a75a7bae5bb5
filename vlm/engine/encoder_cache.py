"""Visual tokens of pictures seen lately, by their content. M visual tokens, D width."""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch
from torch import Tensor

from vlm.engine.keys import picture_key
from vlm.media.open import Media
from vlm.models.processor import Layout, Processor
from vlm.models.vision_language import VisionLanguageModel


class EncoderCache:
    """Of one model; from any thread. The least lately used go when there are more than `most` bytes."""

    def __init__(self, model: VisionLanguageModel, processor: Processor, identity: bytes, most: int):
        self._model, self._processor, self._identity, self._most = model, processor, identity, most
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0
        self.encoded = 0
        """Visual tokens, so far."""

    def key(self, item: Media, layout: Layout, client: str) -> bytes:
        """What a picture or clip is known by: what is read of it, and who shows it."""
        return picture_key(item, layout, self._identity, client.encode())

    @torch.inference_mode()
    def visual(self, key: bytes, item: Media, layout: Layout) -> Tensor:
        """`[M, D]` of a picture, or of all frames of a clip."""
        if (known := self.known(key)) is not None:
            return known
        made = torch.cat(self._model.visual(self._processor.pixels(item, layout), layout.grids))
        with self._lock:
            self.encoded += len(made)
        self.keep(key, made)
        return made

    def known(self, key: bytes) -> Tensor | None:
        """`[M, D]` where it is there."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def keep(self, key: bytes, visual_MD: Tensor) -> None:
        """What a picture of this key came to."""
        with self._lock:
            if visual_MD.nbytes <= self._most and key not in self._known:
                self._known[key] = visual_MD
                self.nbytes += visual_MD.nbytes
                while self.nbytes > self._most:
                    self.nbytes -= self._known.popitem(last=False)[1].nbytes

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

"""A second model that needs no weights: pictures and words by their lightness. `--module greys` makes it known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlm.index.base import Vectors
from vlm.media.process.pictures import Picture
from vlm.server.embedding.embedder import EMBEDDERS, NAMED, Colours


class Greys(Colours):
    name, space, width = "greys", "greys-1", 16

    def embed_images(self, pictures: Sequence[Picture]) -> Vectors:
        return self._rows([picture.reshape(-1, 3).mean(axis=1) for picture in pictures])

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """A text without a colour is black."""
        named = [[np.mean(NAMED[word]) for word in text.lower().split() if word in NAMED] for text in texts]
        return self._rows([np.array(each or [0.0]) for each in named])

    def _rows(self, tones: Sequence[np.ndarray]) -> Vectors:
        counts = [np.bincount((each / 16).astype(int), minlength=self.width) for each in tones]
        return np.stack([row / np.linalg.norm(row) for row in counts]).astype(np.float32)


EMBEDDERS["greys"] = Greys

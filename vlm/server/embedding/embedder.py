"""The model behind the server: two functions into one space. P pictures, D width."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vlm.devices import device_of
from vlm.errors import Incapable
from vlm.index.base import Vectors
from vlm.media.process.pictures import Picture, Resize
from vlm.media.video.sampling.base import Sampler
from vlm.media.video.sampling.uniform import Uniform
from vlm.models.identity import space_of

if TYPE_CHECKING:
    from vlm.facade import Model

THREADS = 4
"""Of torch for one picture: more make a small tower hardly faster."""


class Embedder(Protocol):
    """What the server asks of a model. `space` tells its vectors from another model's, `sampling` a clip's frames."""

    name: str
    space: str
    width: int
    sampling: Sampler
    resize: Resize | None
    """What pictures are brought to before anything else is done with them; `None` where that depends on the picture."""
    workers: int
    """Calls of `embed_images` at a time that are faster than one after another."""
    batch: int
    """Pictures a call that are worth waiting for each other."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 `[N, D]`, unit length."""

    def embed_images(self, pictures: Sequence[Picture]) -> Vectors:
        """float32 `[P, D]`, unit length."""

    def count_tokens(self, texts: Sequence[str]) -> int:
        """How many tokens of the texts are read, all together; any thread may ask."""

    def match(self, pictures: Sequence[bytes], texts: Sequence[str]) -> list[float]:
        """For each pair how well it fits, in nats a token; one thread asks. Raises `Incapable` where it does not."""

    def begin(self) -> None:
        """Called first in every thread that embeds."""


class ModelEmbedder:
    """A model of `vlm.load`."""

    resize: Resize | None = None
    workers, batch = 1, 16

    def __init__(
        self, model: Model, space: tuple[str, int], device: str = "auto", whole: Callable[[], Model] | None = None
    ) -> None:
        """`space` is the space's name and its width; `whole` gives the model with its decoder, if it is not there."""
        self._model, self._whole = model, whole or (lambda: model)
        self.name, (self.space, self.width) = model.name, space
        self.sampling, self.resize = model.sampling(), _resize(model)
        # On a CPU a tower takes about as long for each of many as for one, and whoever searches by a picture waits for
        # those before: a few together. Two such calls at least, so that what is not the tower's work overlaps.
        if device_of(device).type == "cpu":
            self.workers, self.batch = max(2, (os.cpu_count() or 1) // THREADS), 4

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        return self._model.embed_texts(texts)

    def embed_images(self, pictures: Sequence[Picture]) -> Vectors:
        return self._model.embed_images(pictures)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(self._model.count_tokens(texts))

    def match(self, pictures: Sequence[bytes], texts: Sequence[str]) -> list[float]:
        return self._whole().match(pictures, texts)

    def begin(self) -> None:
        """Some cores for each picture that is embedded at a time, instead of all of them for each."""
        if self.workers > 1:
            few_threads()


def _resize(model: Model) -> Resize | None:
    tower = getattr(model.embedder, "tower", None)
    return None if tower is None else Resize.square(tower.cfg.squashed)


NAMED = {
    "black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255),
    "yellow": (255, 255, 0), "lime": (0, 255, 0), "cyan": (0, 255, 255), "magenta": (255, 0, 255),
    "gray": (128, 128, 128), "orange": (255, 165, 0), "brown": (139, 69, 19), "pink": (255, 192, 203),
}  # fmt: skip


class Colours:
    """No model: a picture is how much of each of 64 colours it has, a text the colours it names.

    It needs no weights and takes microseconds, to try a server, to test one and to wear one out.
    """

    name = "colours"
    space = "colours-1"
    width = 64
    resize: Resize | None = None
    workers, batch = 1, 16

    def __init__(self) -> None:
        self.sampling: Sampler = Uniform()

    def embed_images(self, pictures: Sequence[Picture]) -> Vectors:
        return _unit([np.bincount(_bins(picture), minlength=self.width) for picture in pictures], self.width)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        return _unit([self._row(text) for text in texts], self.width)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """A word is one."""
        return sum(len(text.split()) for text in texts)

    def match(self, pictures: Sequence[bytes], texts: Sequence[str]) -> list[float]:
        raise Incapable("model colours: it cannot match texts to pictures; expected one that writes, like nano")

    def begin(self) -> None:
        """It has no threads of its own."""

    def _row(self, text: str) -> NDArray[np.float64]:
        """The colours named, and a little of a pattern of its own, so that no two texts are the same."""
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        row_D = 0.01 * np.random.default_rng(seed).random(self.width)
        for word in text.lower().split():
            if word in NAMED:
                row_D += np.bincount(_bins(np.array(NAMED[word], np.uint8)), minlength=self.width)
        return row_D


EMBEDDERS: dict[str, Callable[[], Embedder]] = {"colours": Colours}
"""Those that are no model of `vlm models`."""


def space_named(name: str) -> str:
    """Of one of `EMBEDDERS` or a model of `vlm.load`, told without loading it. Raises `BadInput` for none."""
    return EMBEDDERS[name]().space if name in EMBEDDERS else space_of(name)[0]


def loaded(name: str, offline: bool = False, device: str = "auto", dtype: str = "auto") -> Embedder:
    """One of `EMBEDDERS` or a model of `vlm.load`, whose decoder, which makes no vectors, is loaded by the first that
    has pictures matched."""
    if name in EMBEDDERS:
        return EMBEDDERS[name]()
    from vlm import api

    load = partial(api.load, name, offline=offline, device=device, dtype=dtype)
    return ModelEmbedder(load(only=("images", "texts")), space_of(name), device, cache(load))


def few_threads() -> None:
    """`THREADS` of torch at most for this thread. Torch keeps a number for each thread and one for threads that begin,
    and sets both: a thread that ends sets the latter back."""
    import torch

    before = torch.get_num_threads()
    if before > THREADS:
        torch.set_num_threads(THREADS)
        back = threading.Thread(target=torch.set_num_threads, args=(before,))
        back.start()
        back.join()


def _bins(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of each pixel's colour, its two highest bits a channel."""
    levels = (picture.reshape(-1, 3) >> 6).astype(np.int64)
    return levels @ np.array([16, 4, 1])


def _unit(rows: Sequence[NDArray], width: int) -> Vectors:
    array = np.array(rows, np.float64).reshape(-1, width)
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)

"""The model under test behind a request cache: its results depend neither on the batch size nor on the order."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vlm import __version__
from vlm.datasets.examples import Example
from vlm.datasets.opening import open_example
from vlm.evaluation.cache import RequestCache, key_of, pixels_of
from vlm.evaluation.served import ServedModel
from vlm.facade import Model
from vlm.index.exact import plain
from vlm.media.open import Media
from vlm.media.video.sampling.base import Sampler
from vlm.vectors import Vectors

Progress = Callable[[int], None]
"""Told how many requests are done."""

CHUNK = 64
"""Requests between two writes to the cache: what a kill can lose."""
AUTO_BATCH = 16


@dataclass(frozen=True)
class Request:
    """A question, or an instruction, about an example's picture or clip; no prompt asks for the model's own caption."""

    example: Example
    prompt: str | None
    max_tokens: int


class ModelUnderTest:
    def __init__(self, model: Model, cache: RequestCache, batch: int | None = None):
        """`batch` answers are written at once; `None` begins with a size that is halved where memory ends."""
        self.model, self.cache, self.batch = model, cache, batch or AUTO_BATCH
        self._shrinks = batch is None
        self.weights = model.weights_hash()
        self.sampling = model.sampling()
        self._about = {"model": model.name, "weights": self.weights, "version": __version__}
        if model.video.times:  # they are in the prompts
            self._about["times"] = "said"
        self._about |= model.settings

    def with_sampling(self, sampling: Sampler | None) -> ModelUnderTest:
        """The same model, reading the frames of clips that `sampling` picks; `None` leaves it to the model."""
        if sampling is None:
            return self
        other = copy.copy(self)
        other.sampling = self.model.sampling(sampling)
        return other

    def answers(self, requests: Sequence[Request], progress: Progress = lambda done: None) -> list[str]:
        """One raw answer each, in order."""
        answers: list[str] = []
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            media = _open_all([request.example for request in chunk], self.sampling)
            keys = [
                self._key("answer", m, prompt=request.prompt, max_tokens=request.max_tokens)
                for m, request in zip(media, chunk, strict=True)
            ]
            known = self.cache.get(keys)
            missing = [i for i, key in enumerate(keys) if key not in known]
            for length in sorted({chunk[i].max_tokens for i in missing}):
                rows = [i for i in missing if chunk[i].max_tokens == length]
                new = self._generate([media[i] for i in rows], [chunk[i].prompt for i in rows], length)
                known |= {keys[i]: text.encode() for i, text in zip(rows, new, strict=True)}
            self.cache.put({keys[i]: known[keys[i]] for i in missing})
            answers += [known[key].decode() for key in keys]
            progress(len(answers))
        return answers

    def _generate(self, media: list[Media], prompts: list[str | None], max_tokens: int) -> list[str]:
        while True:
            try:
                if all(prompt is None for prompt in prompts):
                    return self.model.caption(media, max_tokens=max_tokens, batch=self.batch)
                questions = [prompt or "" for prompt in prompts]
                return self.model.answer(media, questions, max_tokens=max_tokens, batch=self.batch)
            except torch.OutOfMemoryError:
                if not self._shrinks or self.batch == 1:
                    raise
                self.batch = max(1, self.batch // 2)

    def media_vectors(self, examples: Sequence[Example], progress: Progress = lambda done: None) -> Vectors:
        """Unit vectors `[N, S]` of pictures or clips. Computed one at a time: a batch moves their last bits."""
        rows: list[Vectors] = []
        for start in range(0, len(examples), CHUNK):
            rows += list(self.vectors_of(_open_all(examples[start : start + CHUNK], self.sampling)))
            progress(len(rows))
        return np.stack(rows)

    def vectors_of(self, media: Sequence[Media]) -> Vectors:
        """Unit vectors `[N, S]` of pictures or clips in memory."""
        keys = [self._key("media", m) for m in media]
        return np.stack(self._vectors(keys, media, self.model.embed_images))

    def text_vectors(self, texts: Sequence[str], progress: Progress = lambda done: None) -> Vectors:
        """Unit vectors `[N, S]`, one at a time as well."""
        rows: list[Vectors] = []
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            keys = [key_of({**self._about, "kind": "text", "text": text}) for text in chunk]
            rows += self._vectors(keys, chunk, self.model.embed_texts)
            progress(len(rows))
        return np.stack(rows)

    def match_scores(self, pairs: Sequence[tuple[Example, str]], progress: Progress = lambda done: None) -> list[float]:
        """How well each text fits its example's picture or clip, in nats a token (`Model.match`)."""
        scores: list[float] = []
        for start in range(0, len(pairs), CHUNK):
            chunk = pairs[start : start + CHUNK]
            media = _open_all([example for example, _ in chunk], self.sampling)
            keys = [self._key("match", m, text=text) for m, (_, text) in zip(media, chunk, strict=True)]
            known = self.cache.get(keys)
            missing = [i for i, key in enumerate(keys) if key not in known]
            new = self.model.match([media[i] for i in missing], [chunk[i][1] for i in missing])
            self.cache.put(found := {keys[i]: struct.pack("<d", x) for i, x in zip(missing, new, strict=True)})
            scores += [struct.unpack("<d", (known | found)[key])[0] for key in keys]
            progress(len(scores))
        return scores

    def similarities(self, queries_QD: Vectors, candidates_CD: Vectors) -> Iterator[Vectors]:
        """Similarities, `[B, C]` for the next B queries; the whole matrix never exists.

        Those of a server are what its searches say. In memory they are computed row by row as an index does, so that
        equal vectors have equal scores wherever they lie, and both ways agree to the last bit.
        """
        if isinstance(self.model, ServedModel):
            yield from self.model.similarities(queries_QD, candidates_CD)
            return
        for start in range(0, len(queries_QD), CHUNK):
            yield np.stack([plain(candidates_CD, query_D) for query_D in queries_QD[start : start + CHUNK]])

    def _vectors(self, keys: Sequence[str], items: Sequence[Any], embed: Callable[..., Vectors]) -> list[Vectors]:
        known = self.cache.get(keys)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        new = {key: embed([item])[0].astype("<f4").tobytes() for key, item in missing.items()}
        self.cache.put(new)
        return [np.frombuffer((known | new)[key], dtype="<f4") for key in keys]

    def _key(self, kind: str, media: Media, **settings: str | int | None) -> str:
        return key_of({**self._about, "kind": kind, "pixels": pixels_of(media), **settings})


def _open_all(examples: Sequence[Example], sampling: Sampler) -> list[Media]:
    """Each example's picture or clip, opened once where several ask about the same."""
    opened: dict[object, Media] = {}
    media = []
    for example in examples:
        source = (example.image, example.video, example.frames)
        if source not in opened:
            opened[source] = open_example(example, sampling)
        media.append(opened[source])
    return media

"""The model under test behind a request cache: its results depend neither on the batch size nor on the order."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from vlm import __version__
from vlm.conversation.messages import Conversation
from vlm.conversation.texts import add_losses
from vlm.datasets.examples import Example
from vlm.datasets.opening import open_example, open_pictures
from vlm.errors import BadInput
from vlm.evaluation.cache import RequestCache, key_of, pixels_of
from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.endpoint.model import EndpointModel
from vlm.evaluation.predictions import Predicted
from vlm.evaluation.requests import Request, conversation
from vlm.evaluation.served import ServedModel
from vlm.evaluation.usage import Reply, Usage
from vlm.facade import Model
from vlm.heads.decisions.decider import Decider
from vlm.heads.decisions.questions import Question
from vlm.index.exact import plain
from vlm.media.open import Media
from vlm.media.video.sampling.base import Sampler
from vlm.notes import Notes
from vlm.vectors import Vectors

Progress = Callable[[int], None]
"""Told how many requests are done."""

CHUNK = 64
"""Requests between two writes to the cache: what a kill can lose."""
AUTO_BATCH = 16


class ModelUnderTest:
    predicted: Predicted | None = None
    """What it said, where that is read from a file (`vlm.evaluation.predictions`)."""

    def __init__(self, model: Model, cache: RequestCache, batch: int | None = None, shared: bool = False):
        """`batch` answers are written at once; `None` begins with a size that is halved where memory ends.
        `shared`: other runs use the cache too."""
        self.model, self.cache, self.batch = model, cache, batch or AUTO_BATCH
        self._shrinks = batch is None
        self.weights = model.weights_hash()
        self.sampling = model.sampling()
        self.name = model.name
        self.address = model.endpoint.url if isinstance(model, EndpointModel) else ""
        self.usage: Usage | None = Usage() if isinstance(model, EndpointModel) else None
        self.lost = Notes()
        """What of texts the model does not read, or does not know."""
        self._about = {"model": model.name, "weights": self.weights, "version": __version__}
        if shared and self.address:  # what a name stands for is known for one address only
            self._about["address"] = self.address
        if model.video.times:  # they are in the prompts
            self._about["times"] = "said"
        self._about |= model.settings

    @property
    def decides(self) -> bool:
        """Whether it gives probabilities, as far as is known before it is asked."""
        return self.model.writer is not None or isinstance(self.model, EndpointModel)

    def for_task(self, card: BenchmarkCard) -> ModelUnderTest:
        """The same model with a count of its own, reading the frames of clips that the card picks, if it does."""
        other = copy.copy(self)
        other.usage, other.lost = None if self.usage is None else Usage(), Notes()
        if card.sampling is not None:
            other.sampling = self.model.sampling(card.sampling)
        return other

    def notes(self, known: Set[str] = frozenset()) -> tuple[str, ...]:
        """What a reader of the figures must know of the answers; `known` are the ids of the whole split."""
        return (*(() if self.usage is None else self.usage.notes()), *self.lost.lines())

    def answers(self, requests: Sequence[Request], progress: Progress = lambda done: None) -> list[str]:
        """One raw answer each, in order; each is kept as soon as it is there, but for those a server refuses."""
        answers: list[str] = []
        at_once = CHUNK
        if isinstance(self.model, EndpointModel):
            at_once = max(CHUNK, 2 * self.model.endpoint.options.concurrency)
        for start in range(0, len(requests), at_once):
            chunk = requests[start : start + at_once]
            opened: dict[object, tuple[Media, ...]] = {}
            shown = [[_opened(example, self.sampling, opened) for example in request.examples] for request in chunk]
            keys = [self._asked(request, media) for request, media in zip(chunk, shown, strict=True)]
            known = {key: Reply(**json.loads(value)) for key, value in self.cache.get(keys).items()}
            first: dict[str, int] = {}
            for i, key in enumerate(keys):
                if key not in known:
                    first.setdefault(key, i)
            missing = list(first.values())
            for rows, replies in self._replies([chunk[i] for i in missing], [shown[i] for i in missing]):
                new = {keys[missing[row]]: reply for row, reply in zip(rows, replies, strict=True)}
                self.cache.put(
                    {key: json.dumps(asdict(reply)).encode() for key, reply in new.items() if not reply.refused}
                )
                known |= new
                if len(new) < len(missing):
                    progress(len(answers) + len(keys) - sum(key not in known for key in keys))
            if self.usage is not None:
                self.usage = self.usage.with_replies([known[key] for key in keys])
            answers += [known[key].text for key in keys]
            progress(len(answers))
        return answers

    def _replies(
        self, requests: list[Request], media: list[list[tuple[Media, ...]]]
    ) -> Iterator[tuple[list[int], list[Reply]]]:
        """Rows of the requests with their replies, as they come."""
        model = self.model
        ask = {"ask": model.writer.processor.user_messages} if model.writer is not None else {}
        asked = [conversation(request, shown, **ask) for request, shown in zip(requests, media, strict=True)]
        alike: dict[str, list[int]] = {}
        for row, request in enumerate(requests):
            alike.setdefault(f"{request.max_tokens:09d} {request.generation.model_dump_json()}", []).append(row)
        for _, rows in sorted(alike.items()):
            length, generation = requests[rows[0]].max_tokens, requests[rows[0]].generation
            some = [asked[row] for row in rows]
            if isinstance(model, EndpointModel):
                model.check_beams(generation.beams)
                for position, reply in model.converse(some, length, generation.body()):
                    yield [rows[position]], [replace(reply, text=generation.ended(reply.text))]
            else:
                if generation.sampled:
                    raise BadInput(f"model {self.name}: takes the likeliest token each time; {generation.sampled} of a "
                                   "card's generation is for endpoints")  # fmt: skip
                yield rows, [Reply(generation.ended(text)) for text in self._written(some, length, generation.beams)]

    def _written(self, conversations: list[Conversation], max_tokens: int, beams: int) -> list[str]:
        search = {"beams": beams} if beams > 1 else {}  # a model of somebody's own may have none
        while True:
            try:
                return self.model.replies(conversations, max_tokens=max_tokens, batch=self.batch, **search)
            except torch.OutOfMemoryError:
                if not self._shrinks or self.batch == 1:
                    raise
                self.batch = max(1, self.batch // 2)

    def _asked(self, request: Request, shown: Sequence[Sequence[Media]]) -> str:
        """The key of a request: its words, and what the model sees."""
        turns = [[turn.example is not None, turn.prompt, turn.reply] for turn in request.before]
        words = [request.system, turns, request.generation.model_dump(mode="json", exclude_defaults=True)]
        pixels = [[pixels_of(item) for item in media] for media in shown]
        said = {"kind": "reply", "pixels": pixels, "prompt": request.prompt, "max_tokens": request.max_tokens}
        return key_of({**self._about, **said, "words": words})

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
            add_losses(self.lost, chunk, self.model.text_notes(chunk))
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

    def decisions(
        self, asked: Sequence[tuple[Request, Question]], progress: Progress = lambda done: None
    ) -> list[tuple[float, ...]]:
        """The log-probabilities of each question's labels `[C]`, in nats and without a temperature, as a whole reply to
        the request, whose prompt has the question's words; of an endpoint up to one number a question."""
        found: list[tuple[float, ...]] = []
        for start in range(0, len(asked), CHUNK):
            chunk = asked[start : start + CHUNK]
            opened: dict[object, tuple[Media, ...]] = {}
            shown = [[_opened(one, self.sampling, opened) for one in request.examples] for request, _ in chunk]
            keys = [
                key_of({"request": self._asked(request, media), "labels": question.labels})
                for (request, question), media in zip(chunk, shown, strict=True)
            ]
            known = self.cache.get(keys)
            missing = [i for i, key in enumerate(keys) if key not in known]
            rows = self._decided([(*chunk[i], shown[i]) for i in missing])
            for i, row in zip(missing, rows, strict=True):
                known[keys[i]] = struct.pack(f"<{len(row)}d", *row)
                self.cache.put({keys[i]: known[keys[i]]})
                progress(len(found) + i + 1)
            found += [
                struct.unpack(f"<{len(question.labels)}d", known[key])
                for key, (_, question) in zip(keys, chunk, strict=True)
            ]
            progress(len(found))
        return found

    def _decided(
        self, asked: Sequence[tuple[Request, Question, Sequence[tuple[Media, ...]]]]
    ) -> Iterator[tuple[float, ...]]:
        if isinstance(self.model, EndpointModel):
            yield from self.model.decided([(conversation(request, media), q) for request, q, media in asked])
            return
        writer = self.model.writer
        assert writer is not None
        decider = Decider(writer)
        for request, question, media in asked:
            said = conversation(request, media, ask=writer.processor.user_messages)
            prompt = writer.processor.prompt(said.messages, said.media)
            yield decider.decide(lambda _, prompt=prompt: prompt, [question]).answers[0].log_probabilities  # type: ignore[misc]

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


def _opened(example: Example, sampling: Sampler, opened: dict[object, tuple[Media, ...]]) -> tuple[Media, ...]:
    """An example's pictures or clip, opened once where several ask about the same."""
    source = (example.image, example.video, example.frames)
    if source not in opened:
        opened[source] = open_pictures(example, sampling)
    return opened[source]


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

"""Requests for engines in tests, and what comes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from vlm.engine.engine import Engine
from vlm.engine.request import Finish, Piece, Request, Sampling, Token, Usage
from vlm.heads.writer import Writer
from vlm.media.open import Media, open_media
from vlm.models.processor import Prompt

WORDS = ("red", "blue", "green", "square", "wall", "dog", "picture")


@dataclass
class Answer:
    """All that was heard of one reply."""

    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None


@dataclass
class Heard:
    """Of one request."""

    answers: dict[int, Answer] = field(default_factory=dict)
    usage: Usage | None = None
    error: Exception | None = None

    def __call__(self, piece: Piece) -> None:
        answer = self.answers.setdefault(piece.choice, Answer())
        assert answer.finish is None, "a piece after the last"
        answer.tokens += piece.tokens
        answer.text += piece.text
        answer.finish, self.usage = piece.finish, piece.usage or self.usage
        self.error = piece.error or self.error


def ask(engine: Engine, requests: Sequence[Request]) -> list[Heard]:
    """All at once, until all are answered."""
    heard = [Heard() for _ in requests]
    for request, listener in zip(requests, heard, strict=True):
        engine.submit(request, listener)
    finish(engine)
    return heard


def finish(engine: Engine) -> None:
    for _ in range(100_000):
        if not engine.step():
            return
    raise AssertionError("the engine comes to no end")


def pictures(count: int, seed: int = 0) -> list[Media]:
    """Noise, in several shapes."""
    numbers = np.random.default_rng(seed)
    sizes = [(40 + 10 * (n % 4), 60 - 5 * (n % 3), 3) for n in range(count)]
    return [open_media(Image.fromarray(numbers.integers(0, 256, size, np.uint8))) for size in sizes]


def clips(count: int, seed: int = 0) -> list[Media]:
    numbers = np.random.default_rng(100 + seed)
    found = []
    for number in range(count):
        frames = [Image.fromarray(numbers.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(2 + number % 2)]
        found.append(Media(tuple(frames), tuple(0.5 * n for n in range(len(frames)))))
    return found


def prompts(writer: Writer, count: int, seed: int, media: Sequence[Media], words: int = 6) -> list[Prompt]:
    """Questions about one of `media`, or about none; some begin alike."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        text = " ".join(chance.choice(WORDS) for _ in range(chance.randrange(1, words))) + "?"
        shown = [chance.choice(media)] if chance.random() < 0.75 else []
        if shown:
            found.append(writer.processor.prompt(writer.processor.user_messages(text, shown[0]), shown))
        else:
            found.append(writer.processor.read([{"role": "user", "content": text}]))
    return found


def requests(writer: Writer, count: int, seed: int, media: Sequence[Media], most: int = 24) -> list[Request]:
    """Of mixed lengths, greedy and sampled, some for several replies, some for log-probabilities."""
    chance = random.Random(seed)
    return [
        Request(
            prompt,
            max_tokens=chance.randrange(1, most),
            sampling=Sampling(
                temperature=chance.choice((0.0, 0.0, 0.8)),
                seed=chance.randrange(100),
                alternatives=chance.choice((None, 0, 2)),
                top_p=chance.choice((1.0, 0.9)),
            ),
            n=chance.choice((1, 1, 1, 2)),
            client=chance.choice(("a", "b")),
            priority=chance.choice((0, 0, 1)),
        )
        for prompt in prompts(writer, count, seed, media)
    ]

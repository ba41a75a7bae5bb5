"""A small model in the real one's place, and files that a command must refuse."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vlm.conversation.budget import PictureTokens, TokenBudget
from vlm.conversation.messages import Messages, read_messages
from vlm.heads.classification import Chance, classified
from vlm.heads.decisions import Decision, Question
from vlm.heads.moments import Moment
from vlm.media.open import Media

WIDTH = 8


class FakeModel:
    """Says a picture's size, and embeds it by its mean colour; counts what it embeds."""

    name = "nano"

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def caption(self, media: Sequence[Media], *, beams: int = 1) -> list[str]:
        if beams > 1:
            return [f"{beams} beams over {caption}" for caption in self.caption(media)]
        return [f"a clip of {len(m.frames)}" if m.is_clip else f"a picture of {m.frames[0].width}" for m in media]

    def answer(self, media: Sequence[Media], questions: Sequence[str]) -> list[str]:
        return [f"yes to {question}" for _, question in zip(media, questions, strict=True)]

    def budget(self, media: Sequence[Media], questions: Sequence[str] | None = None) -> list[TokenBudget]:
        """Five words, sixteen tokens a frame, and room for 200."""
        words = [5] * len(media) if questions is None else [len(question.split()) for question in questions]
        return [
            TokenBudget((PictureTokens(16),) * len(m.frames), number, 10, 200, m.source)
            for m, number in zip(media, words, strict=True)
        ]

    def count(self, messages: Messages, *, max_tokens: int) -> TokenBudget:
        """A token a word, of every turn."""
        media, words = _said(messages)
        return TokenBudget((PictureTokens(16),) * len(media), len(words), max_tokens, 200)

    def chat(
        self, messages: Messages, *, stream: Literal[True], max_tokens: int, temperature: float, top_p: float,
        seed: int | None,
    ) -> Iterator[str]:  # fmt: skip
        """Says how many turns and pictures it was shown, and the last words; a word at a time."""
        media, words = _said(messages)
        said = f"turn {len(messages)}, {len(media)} shown: {words[-1]}"
        for word in said.split(" ")[:max_tokens]:
            yield word + " "

    def match(self, media: Sequence[Media], texts: Sequence[str]) -> list[float]:
        """Likes wide pictures."""
        return [float(m.frames[0].width) - 100 for m in media]

    def classify(self, media: Sequence[Media], names: Sequence[str], *, templates: Sequence[str]) -> list[list[Chance]]:
        return classified(self.embed_images(media), names, templates, self._named, 10.0)

    def decide(
        self, inputs: Sequence[Any], questions: Sequence[Question], *, temperatures: Path | None = None
    ) -> list[list[Decision]]:
        """Finds the first label twice as likely as each other."""
        log = [(-1.0, *[-1.0 - float(np.log(2))] * (len(question.labels) - 1)) for question in questions]
        return [[Decision(question, own) for question, own in zip(questions, log, strict=True)] for _ in inputs]

    def _named(self, sentences: Sequence[str]) -> np.ndarray:
        return self.embed_texts([sentence.split()[-1].strip(".") for sentence in sentences])

    def moments(self, video: str, texts: Sequence[str]) -> list[list[Moment]]:
        return [[Moment(0.5, 1.25, 0.3)] for _ in texts]

    def embed_images(self, media: Sequence[Media]) -> np.ndarray:
        self.embedded += [m.source for m in media]
        colours = [np.asarray(m.frames[0]).reshape(-1, 3).mean(axis=0) + 1 for m in media]
        return _unit(np.stack([np.pad(colour, (0, WIDTH - 3)) for colour in colours]))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
        rows = [colours.get(text) or tuple(hashlib.sha256(text.encode()).digest()[:3]) for text in texts]
        return _unit(np.stack([np.pad(np.asarray(row, dtype=float) + 1e-3, (0, WIDTH - 3)) for row in rows]))

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        """Knows all words."""
        return [[] for _ in texts]


def _said(messages: Messages) -> tuple[list[Media], list[str]]:
    read = read_messages(messages)
    return list(read.media), " ".join(message.text for message in read.messages).split()


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON object and nothing else."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    @property
    def complaints(self) -> list[str]:
        """What is on standard error beside the count of tokens."""
        return [line for line in self.err.splitlines() if not line.endswith(" of 200")]


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that claim to be pictures or clips."""
    folder.mkdir(exist_ok=True)
    Image.effect_noise((200, 200), 50).save(folder / "whole.jpeg")
    whole = (folder / "whole.jpeg").read_bytes()
    (folder / "whole.jpeg").unlink()
    contents = {
        "truncated.jpg": whole[: len(whole) // 2],
        "text.jpg": b"just words\n",
        "empty.png": b"",
        "no.mp4": b"x",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "huge.png").write_bytes(png_header(20_000, 20_000))
    return {path.name: path for path in sorted(folder.iterdir())}


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is this large; nobody should get as far as its pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    framed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)

"""A facade whose answers a test decides, and benchmarks of plain coloured squares."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import yaml
from PIL import Image

from vlm.conversation.messages import Conversation
from vlm.media.open import Media
from vlm.media.video.config import VideoConfig
from vlm.media.video.sampling.base import Sampler

COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}


class FakeModel:
    """Answers by a rule on (colour of the picture, question); embeds colours and their names; counts its work."""

    name = "fake"
    video = VideoConfig()
    settings: Mapping[str, str] = MappingProxyType({})
    similarity_scale = 20.0
    writer = None
    can = frozenset({"writes", "embeds", "matches"})

    def __init__(self, rule: Callable[[str, str], str] = lambda color, question: color, weights: str = "w1") -> None:
        self.rule, self.weights, self.asked, self.batches = rule, weights, 0, set[int]()

    def sampling(self, wanted: Sampler | None = None) -> Sampler:
        return wanted or self.video.sampling

    def weights_hash(self) -> str:
        return self.weights

    def replies(self, conversations: Sequence[Conversation], *, max_tokens: int, batch: int) -> list[str]:
        self.asked += len(conversations)
        self.batches.add(batch)
        return [self.rule(color_of(said.media[-1]), said.messages[-1].text) for said in conversations]

    def match(self, media: Sequence[Media], texts: Sequence[str]) -> list[float]:
        self.asked += len(media)
        return [-0.5 if self.rule(color_of(m), text) == "fits" else -5.0 for m, text in zip(media, texts, strict=True)]

    def embed_images(self, media: Sequence[Media]) -> np.ndarray:
        self.asked += len(media)
        return _unit([COLORS[color_of(m)] for m in media])

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += len(texts)
        named = [next((rgb for name, rgb in COLORS.items() if name in text), (1, 1, 1)) for text in texts]
        return _unit(named)

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        """Reads eight words."""
        counts = [len(text.split()) for text in texts]
        return [[f"{count} tokens, of which the first 8 are read"] if count > 8 else [] for count in counts]


def color_of(media: Media) -> str:
    pixel = media.frames[0].getpixel((0, 0))
    return min(COLORS, key=lambda name: sum(abs(a - b) for a, b in zip(pixel, COLORS[name], strict=True)))


def _unit(rows: Sequence[Sequence[float]]) -> np.ndarray:
    values = np.asarray(rows, dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def write_benchmark(folder: Path, rows: Sequence[dict[str, object]], **card: object) -> str:
    """A data set of squares and a benchmark on it; `rows` give `color` and what else an example has."""
    home = folder / "squares"
    home.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        color = str(row["color"])
        Image.new("RGB", (20 + number, 20), COLORS[color]).save(home / f"{number}.png")
        rest = {key: value for key, value in row.items() if key != "color"}
        lines.append(json.dumps({"image": f"{number}.png", "split": "test", **rest}))
    (home / "rows.jsonl").write_text("\n".join(lines) + "\n")
    classes = {"classes": list(COLORS)} if card.get("kind") == "classification" else {}
    data = {
        "name": "squares", "about": "plain colours", "licence": "none", "source": "made by the test",
        "folder": "squares", "annotations": "rows.jsonl", "splits": {"test": len(rows)}, **classes,
    }  # fmt: skip
    (folder / "squares.yaml").write_text(yaml.safe_dump(data))
    about = {"name": "squares-test", "about": "squares", "dataset": str(folder / "squares.yaml"), "split": "test"}
    (folder / "benchmark.yaml").write_text(yaml.safe_dump({**about, **card}))
    return str(folder / "benchmark.yaml")

"""Benchmark cards: a data set's split, what is asked of the model, and how it is scored."""

from __future__ import annotations

from typing import Literal

from vlm import assets, config
from vlm.config import Config


class BenchmarkCard(Config):
    name: str
    about: str
    dataset: str
    split: str
    kind: Literal["retrieval", "caption", "vqa"]
    max_tokens: int = 40


def load_card(name_or_path: str) -> BenchmarkCard:
    return config.load(BenchmarkCard, assets.find_card("eval", name_or_path, "benchmark"))

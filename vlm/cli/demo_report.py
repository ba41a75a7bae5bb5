"""What a demo shows: pictures with what the model said of them, and searches with their hits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True)
class Shown:
    """A picture (one frame) or clip (frames with times), and what the model said of it."""

    path: str
    frames: tuple[Image.Image, ...]
    times: tuple[float, ...]
    caption: str
    answers: tuple[tuple[str, str], ...]
    vector: np.ndarray

    @property
    def name(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class Searched:
    """A query - words, or a picture - and the nearest pictures with their scores."""

    query: str
    picture: Shown | None
    hits: tuple[tuple[Shown, float], ...]


@dataclass(frozen=True)
class Report:
    model: str
    shown: list[Shown]
    searched: list[Searched]

    def as_dict(self) -> dict[str, Any]:
        results = [
            {
                "input": item.path,
                "caption": item.caption,
                "answers": [{"question": question, "answer": answer} for question, answer in item.answers],
                **({"times": list(item.times)} if item.times else {}),
            }
            for item in self.shown
        ]
        searches = [
            {"query": s.query, "results": [{"path": hit.path, "score": round(score, 6)} for hit, score in s.hits]}
            for s in self.searched
        ]
        return {"model": self.model, "results": results, "searches": searches}

"""How long `/v1/decisions` takes for one and for several yes/no questions about a picture."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from vlm.bench.chat_client import TIMEOUT
from vlm.bench.server_process import ServerProcess
from vlm.errors import VlmError

QUESTIONS = (1, 8)
THINGS = ("dog", "cat", "car", "tree", "house", "person", "boat", "bird")


@dataclass(frozen=True)
class Decided:
    """Medians, in milliseconds: of a request about a picture that was never shown, and of one about one that was."""

    questions: int
    new_ms: float
    again_ms: float


def decisions(side: ServerProcess, rounds: int, pictures: Iterator[bytes]) -> list[Decided]:
    """One request after another. Raises `VlmError` for an answer that is none."""
    found = []
    with httpx.Client(base_url=side.address, timeout=TIMEOUT) as asking:
        _seconds(asking, next(pictures), 1)  # what is made once
        for count in QUESTIONS:
            new, again = [], []
            for _ in range(rounds):
                picture = next(pictures)
                new.append(_seconds(asking, picture, count))
                again.append(_seconds(asking, picture, count))
            found.append(Decided(count, 1000 * statistics.median(new), 1000 * statistics.median(again)))
    return found


def body(picture: bytes, count: int) -> dict[str, object]:
    """So many questions about a JPEG."""
    shown = {"type": "input_image", "image_url": f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"}
    questions = [{"type": "predicate", "instructions": f"Is there a {thing} in the picture?"} for thing in THINGS]
    return {"input": [{"role": "user", "content": [shown]}], "questions": questions[:count]}


def _seconds(asking: httpx.Client, picture: bytes, count: int) -> float:
    began = time.perf_counter()
    response = asking.post("/v1/decisions", json=body(picture, count))
    seconds = time.perf_counter() - began
    if response.status_code != 200 or len(response.json()["answers"]) != count:
        raise VlmError(f"decisions: expected {count} answers, got status {response.status_code}: {response.text[:200]}")
    return seconds

"""Predictions of any system, read from a file, as the model under test: what it said is scored, nothing is run.

A line an example: `{"id": ..., "answer" or "caption": "..."}`, with a list for a benchmark that asks several times
(the rotations of options, the turns of a conversation), or `{"id": ..., "ranking": [...]}`, the best first: ids of
pictures for a caption's id (`12#0` is the first caption of example 12), ids of captions for a picture's, names of
classes for a classification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from vlm.datasets.readers.jsonfiles import Json, Jsonl
from vlm.errors import BadInput
from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.requests import Request

ANSWERS = ("answer", "caption", "ranking")
KINDS = ("caption", "choice", "classification", "dialogue", "judged", "retrieval", "vqa")
"""Of benchmarks that predictions can be scored on."""
MOST_NAMED = 3


class Predictions:
    """The predictions of a file, or of a folder with a `TASK.jsonl` for each benchmark."""

    def __init__(self, path: Path, name: str | None = None):
        """Raises `BadInput` where there is no such file or folder."""
        if not path.exists():
            raise BadInput(f"{path}: no such file of predictions")
        self.path, self.name = path, name or path.stem

    def file(self, task: str) -> Path:
        """The one for a task. Raises `BadInput` where there is none."""
        if not self.path.is_dir():
            return self.path
        found = [self.path / f"{task}{suffix}" for suffix in (".jsonl", ".json")]
        there = next((path for path in found if path.is_file()), None)
        if there is None:
            raise BadInput(f"{found[0]}: no such file; expected the predictions for benchmark {task}")
        return there

    def check(self, cards: Sequence[BenchmarkCard]) -> None:
        """Raise `BadInput` for a kind of benchmark that needs the model itself, and for files that are missing."""
        if wrong := [card for card in cards if card.kind not in KINDS]:
            raise BadInput(
                f"--predictions: cannot be scored on {', '.join(card.name for card in wrong)} "
                f"(kind {', '.join(dict.fromkeys(card.kind for card in wrong))}); expected kind {', '.join(KINDS)}"
            )
        if len(cards) > 1 and not self.path.is_dir():
            raise BadInput(
                f"{self.path}: one file for {len(cards)} benchmarks; expected a folder with a BENCHMARK.jsonl for each"
            )
        for card in cards:
            self.file(card.name)

    def weights_hash(self) -> str:
        """sha256 of all that was predicted."""
        files = sorted(self.path.glob("*.json*")) if self.path.is_dir() else [self.path]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.name.encode() * self.path.is_dir())
            with file.open("rb") as content:
                while piece := content.read(1 << 20):
                    digest.update(piece)
        return digest.hexdigest()

    def of(self, task: str) -> Predicted:
        """The predictions for a task. Raises `BadInput` for a line that is none and an id that is there twice."""
        path = self.file(task)
        found: dict[str, Any] = {}
        rows = (Json() if path.suffix == ".json" else Jsonl()).whole_rows(path)
        for row in rows:
            name = row.values.get("id")
            keys = [key for key in ANSWERS if row.values.get(key) is not None]
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise BadInput(f"{row.where}: key id: expected the example's id, got {name!r}")
            if len(keys) != 1:
                raise BadInput(f"{row.where}: expected one of {', '.join(ANSWERS)}, got {', '.join(keys) or 'none'}")
            if str(name) in found:
                raise BadInput(f"{row.where}: id {str(name)!r} is there twice")
            found[str(name)] = _said(row.values[keys[0]], keys[0], row.where)
        if not found:
            raise BadInput(f"{path}: no predictions")
        return Predicted(path, found)


class Predicted:
    """What a system said of one benchmark's examples; it notes which it was asked for and lacks."""

    def __init__(self, path: Path, said: dict[str, Any]):
        self.path, self._said = path, said
        self._asked: dict[str, None] = {}

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """One answer each, empty where there is none. Raises `BadInput` for a list of answers of another length."""
        texts: list[str] = []
        counts: dict[str, int] = {}
        for request in requests:
            name = request.example.id if request.example is not None else ""
            counts[name] = counts.get(name, 0) + 1
        given: dict[str, int] = dict.fromkeys(counts, 0)
        for request in requests:
            name = request.example.id if request.example is not None else ""
            said = self._of(name)
            said = [said] if isinstance(said, str) else said
            if said is not None and len(said) != counts[name]:
                raise BadInput(
                    f"{self.path}: id {name!r}: {len(said)} answers; expected {counts[name]}, as it is asked so often"
                )
            texts.append("" if said is None else said[given[name]])
            given[name] += 1
        return texts

    def ranking(self, name: str) -> list[str] | None:
        """The best first; an answer is a ranking of one."""
        said = self._of(name)
        return [said] if isinstance(said, str) else said

    def has(self, names: Sequence[str]) -> bool:
        """Whether any of these is there."""
        return any(name in self._said for name in names)

    def notes(self, known: Set[str] = frozenset()) -> tuple[str, ...]:
        """What is missing, and what is no example's; `known` are the ids of the whole split, of which a part may have
        been asked for. Raises `BadInput` where nothing fits."""
        missing = [name for name in self._asked if name not in self._said]
        if len(missing) == len(self._asked):
            raise BadInput(
                f"{self.path}: none of {len(self._said)} ids is an example's, such as {next(iter(self._said))!r}; "
                f"expected ids like {next(iter(self._asked), '')!r}"
            )
        unknown = [
            name
            for name in self._said
            if name not in self._asked and name not in known and name.rpartition("#")[0] not in known
        ]
        told = []
        if missing:
            told.append(f"{_named(missing)} without a prediction, counted as empty answers")
        if unknown:
            told.append(f"{_named(unknown)} of the predictions are no example's, left out")
        return tuple(told)

    def _of(self, name: str) -> Any:
        self._asked[name] = None
        return self._said.get(name)


def _said(value: Any, key: str, where: str) -> str | list[str]:
    if isinstance(value, str) and key != "ranking":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and key != "ranking":
        return str(value)
    if isinstance(value, list) and (value or key == "ranking") and all(isinstance(one, str | int) for one in value):
        texts = [str(one) for one in value]
        if key == "ranking" and len(set(texts)) < len(texts):
            raise BadInput(f"{where}: key ranking: {texts[0]!r} or another is there twice; expected each once")
        return texts
    raise BadInput(
        f"{where}: key {key}: expected {'a list of names' if key == 'ranking' else 'a text'}, got {value!r:.60}"
    )


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return f"{len(names):,} ids ({shown}{', ...' if len(names) > MOST_NAMED else ''})"

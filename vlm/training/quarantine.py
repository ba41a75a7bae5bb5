"""Samples that cannot be learned from: left out of the run and kept in a file, each with its reason."""

from __future__ import annotations

import json
from pathlib import Path

from vlm.errors import BadInput
from vlm.training.task import Log

NAME = "quarantine.jsonl"


class Quarantine:
    """Of one run: `quarantine.jsonl` in its folder, a line a sample. More than `most` end the run."""

    def __init__(self, run: Path, most: int, log: Log):
        self.path, self.most, self._log = run / NAME, most, log
        self._known: set[str] = set()
        if self.path.is_file():
            self._known = {json.loads(line)["sample"] for line in self.path.read_text().splitlines()}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, sample: str, reason: str) -> None:
        """Raises `BadInput` where there are too many."""
        if sample in self._known:
            return
        if len(self._known) >= self.most:
            raise BadInput(f"{self.path}: more than {self.most} samples cannot be used; the next is {sample}: {reason}")
        self._known.add(sample)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"sample": sample, "reason": reason}) + "\n")
        self._log(f"left out: {sample}: {reason}")

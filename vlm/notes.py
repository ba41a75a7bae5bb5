"""What was left out or changed on the way, told: notes that are alike are added up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from threading import Lock
from typing import Any

_NUMBER = re.compile(r"\b\d+(?:x\d+)?\b")


class Notes:
    """Notes of one run, in the order they first came. Several threads may add to it."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._lock = Lock()

    def add(self, where: str, what: str, count: int = 1) -> None:
        """`what` happened at `where` (a file, a record), so many times. Notes differ by their words, not by numbers."""
        kind = _NUMBER.sub("#", what)
        with self._lock:
            self._first.setdefault(kind, f"{where}: {what}" if where else what)
            self._counts[kind] = self._counts.get(kind, 0) + count

    def extend(self, where: str, lines: Sequence[str]) -> None:
        """Lines that may begin with `where` themselves, as those of a picture do."""
        for line in lines:
            self.add(where, line.removeprefix(f"{where}: "))

    def add_all(self, other: Notes) -> None:
        """Those of another run."""
        for kind, first in other._first.items():
            with self._lock:
                self._first.setdefault(kind, first)
                self._counts[kind] = self._counts.get(kind, 0) + other._counts[kind]

    def lines(self) -> list[str]:
        """A line a kind of note: the first one, and how many more like it there were."""
        return [
            self._first[kind] + (f" ({count - 1} more like it)" if count > 1 else "")
            for kind, count in self._counts.items()
        ]

    def as_json(self) -> list[dict[str, Any]]:
        return [{"note": self._first[kind], "count": count} for kind, count in self._counts.items()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Notes) and self.as_json() == other.as_json()

    def __len__(self) -> int:
        return len(self._counts)

"""The engines that can keep a collection, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from vlm.errors import unknown
from vlm.index.base import Index

NAMES = ("flat",)


class Engine(Protocol):
    """What makes and opens indexes of one kind."""

    def create(self, folder: Path, width: int, model: str) -> Index: ...

    def open(self, folder: Path, *, model: str | None = None, width: int | None = None) -> Index: ...


def engine(name: str) -> Engine:
    """Raises `BadInput` for a name that is none. What an engine needs is imported when it is asked for."""
    if name == "flat":
        from vlm.index.flat import FlatIndex

        return FlatIndex
    raise unknown("engine", name, NAMES)

"""Ids, vectors and metadata, found by vector: one interface (`base.Index`) and engines behind it.

    a folder                    "lance" (LanceDB, of any size) or "flat" (all in memory, no dependency)
    s3://bucket/prefix          "lance" on object storage; also gs:// and az://
    http://host:6333/name       "qdrant": the collection `name` of a server

Nothing here knows a model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vlm.errors import BadInput
from vlm.index.base import Hit, Index
from vlm.index.engines import ENGINES, Engine

# LanceDB reads it when it is imported. It warns of upkeep that a write came before, which is tried again here.
os.environ.setdefault("LANCEDB_LOG", "error")

__all__ = ["ENGINES", "Engine", "Hit", "Index", "create_index", "drop_index", "is_folder", "open_index", "there"]


def create_index(
    place: str | Path, width: int, model: str, *, engine: str | None = None, options: Mapping[str, str] | None = None
) -> Index:
    """An empty index. `engine` matters for a folder, which is LanceDB's where it is not said.

    `options` are LanceDB's storage options, or `api_key` for Qdrant; without them both look into the environment
    (`AWS_ACCESS_KEY_ID` and its like, `QDRANT_API_KEY`). Raises `BadInput` where something is there
    already, and for an engine that is not installed.
    """
    scheme, of_scheme = _scheme(place), _of_scheme(place)
    engine = engine or of_scheme or "lance"
    found = ENGINES[engine]
    if not (found.in_folders if scheme is None else scheme in found.schemes):
        got = of_scheme or " or ".join(name for name, one in ENGINES.items() if one.in_folders)
        raise BadInput(f"{place}: expected a place for {engine}, got one for {got}")
    found.needed(place)
    return found.create(place, width, model, options)


def open_index(
    place: str | Path,
    *,
    model: str | None = None,
    width: int | None = None,
    snapshot: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Index:
    """The index that is at `place`, whichever engine's, or as it was at a snapshot.

    Raises `BadInput` where there is none, where it is damaged, or where its model or width is not the one given.
    """
    engine = ENGINES[_of_scheme(place) or _in_folder(place) or "flat"]
    engine.needed(place)
    return engine.open(place, model=model, width=width, snapshot=snapshot, options=options)


def there(place: str | Path, *, options: Mapping[str, str] | None = None) -> bool:
    """Whether an index is at `place`, so that `open_index` and not `create_index` is to be asked."""
    name = _of_scheme(place)
    if name is None:
        return _in_folder(place) is not None
    ENGINES[name].needed(place)
    return ENGINES[name].there(place, options)


def drop_index(place: str | Path, *, options: Mapping[str, str] | None = None) -> None:
    """Remove the index at `place` with its snapshots. Raises `BadInput` where there is none."""
    if not there(place, options=options):
        raise BadInput(f"{place}: expected an index, got none")
    ENGINES[_of_scheme(place) or _in_folder(place) or "flat"].drop(place, options)


def is_folder(place: str | Path) -> bool:
    """Whether a place is in the file system, and not a URL. Raises `BadInput` for a URL that is no engine's."""
    return _of_scheme(place) is None


def _scheme(place: str | Path) -> str | None:
    """A URL's; `None` for a folder."""
    scheme, found, _ = str(place).partition("://")
    return scheme if found else None


def _of_scheme(place: str | Path) -> str | None:
    """The engine that a URL is for; `None` for a folder."""
    scheme = _scheme(place)
    if scheme is None:
        return None
    for name, engine in ENGINES.items():
        if scheme in engine.schemes:
            return name
    *others, last = [f"{known}://" for engine in ENGINES.values() for known in engine.schemes]
    raise BadInput(f"{place}: expected a folder, {', '.join(others)} or {last}, got {scheme}://")


def _in_folder(place: str | Path) -> str | None:
    """The engine whose index is in a folder."""
    return next((name for name, engine in ENGINES.items() if engine.in_folders and engine.there(place, None)), None)

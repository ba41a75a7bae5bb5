"""Ids, vectors and metadata, found by vector: one interface (`base.Index`) and engines behind it.

    a folder                    "lance" (LanceDB, of any size) or "flat" (all in memory, no dependency)
    s3://bucket/prefix          "lance" on object storage; also gs:// and az://
    http://host:6333/name       "qdrant": the collection `name` of a server

Nothing here knows a model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlm.errors import BadInput, unknown
from vlm.index.base import Hit, Index

# LanceDB reads it when it is imported. It warns of upkeep that a write came before, which is tried again here.
os.environ.setdefault("LANCEDB_LOG", "error")

__all__ = ["Hit", "Index", "create_index", "drop_index", "is_folder", "open_index", "there"]

ENGINES = {"flat": None, "lance": "lancedb", "qdrant": "qdrant_client"}
"""With the package that each needs."""
SIGNS = {"flat": "manifest.json", "lance": "entries.lance"}
"""What a folder with an index of an engine holds."""


def create_index(
    place: str | Path, width: int, model: str, *, engine: str | None = None, options: Mapping[str, str] | None = None
) -> Index:
    """An empty index. `engine` matters for a folder, which is LanceDB's where it is not said.

    `options` are LanceDB's storage options, or `api_key` for Qdrant; without them both look into the environment
    (`AWS_ACCESS_KEY_ID` and its like, `QDRANT_API_KEY`). Raises `BadInput` where something is there
    already, and for an engine that is not installed.
    """
    scheme = _scheme(place)
    engine = engine or scheme or "lance"
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if (scheme is None and engine == "qdrant") or (scheme is not None and engine != scheme):
        raise BadInput(f"{place}: expected a place for {engine}, got one for {scheme or 'flat or lance'}")
    _need(engine, place)
    if engine == "flat":
        from vlm.index.flat import FlatIndex

        return FlatIndex.create(Path(place), width, model)
    if engine == "lance":
        from vlm.index.lance import LanceIndex

        return LanceIndex.create(place, width, model, storage_options=options)
    from vlm.index.qdrant import QdrantIndex

    return QdrantIndex.create(*_server(str(place), options), width, model)


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
    engine = _scheme(place) or _engine_in(Path(place)) or "flat"
    _need(engine, place)
    if engine == "flat":
        from vlm.index.flat import FlatIndex

        return FlatIndex.open(place, model=model, width=width, snapshot=snapshot)
    if engine == "lance":
        from vlm.index.lance import LanceIndex

        return LanceIndex.open(place, model=model, width=width, snapshot=snapshot, storage_options=options)
    from vlm.index.qdrant import QdrantIndex

    return QdrantIndex.open(*_server(str(place), options), model=model, width=width, snapshot=snapshot)


def there(place: str | Path, *, options: Mapping[str, str] | None = None) -> bool:
    """Whether an index is at `place`, so that `open_index` and not `create_index` is to be asked."""
    scheme = _scheme(place)
    if scheme is None:
        return _engine_in(Path(place)) is not None
    _need(scheme, place)
    if scheme == "lance":
        from vlm.index import lance_table

        return lance_table.there(str(place), options)
    from vlm.index import qdrant

    return qdrant.there(*_server(str(place), options))


def drop_index(place: str | Path, *, options: Mapping[str, str] | None = None) -> None:
    """Remove the index at `place` with its snapshots. Raises `BadInput` where there is none."""
    if not there(place, options=options):
        raise BadInput(f"{place}: expected an index, got none")
    scheme = _scheme(place)
    if scheme is None:
        shutil.rmtree(place)
    elif scheme == "lance":
        from vlm.index import lance_table

        lance_table.drop(str(place), options)
    else:
        from vlm.index import qdrant

        qdrant.drop(*_server(str(place), options))


def is_folder(place: str | Path) -> bool:
    """Whether a place is in the file system, and not a URL."""
    return _scheme(place) is None


def _scheme(place: str | Path) -> str | None:
    """The engine that a URL is for; `None` for a folder."""
    scheme, found, _ = str(place).partition("://")
    if not found:
        return None
    if scheme in ("http", "https"):
        return "qdrant"
    if scheme in ("s3", "gs", "az"):
        return "lance"
    raise BadInput(f"{place}: expected a folder, s3://, gs://, az://, http:// or https://, got {scheme}://")


def _engine_in(folder: Path) -> str | None:
    return next((engine for engine, sign in SIGNS.items() if (folder / sign).exists()), None)


def _need(engine: str, place: object) -> None:
    package = ENGINES[engine]
    if package is not None and find_spec(package) is None:
        raise BadInput(f"{place}: needs the package {package}, which is not installed (pip install 'vlm[index]')")


def _server(place: str, options: Mapping[str, str] | None) -> tuple[Any, str]:
    from qdrant_client import QdrantClient

    server, _, collection = place.rpartition("/")
    if server.endswith(("http:/", "https:/")) or not collection:
        raise BadInput(f"{place}: expected http://host:port/collection, got no collection")
    key = (options or {}).get("api_key") or os.environ.get("QDRANT_API_KEY")
    return QdrantClient(url=server, api_key=key, check_compatibility=False), collection

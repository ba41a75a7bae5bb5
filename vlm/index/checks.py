"""What every engine refuses, before it changes anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput
from vlm.index.base import Metadata, Vectors

UNIT_TOLERANCE = 1e-3


def entries(
    place: object, width: int, ids: Sequence[str], vectors: Any, metadata: Sequence[Metadata] | None
) -> tuple[Vectors, list[str]]:
    """Entries as given, the vectors as float32 `[len(ids), D]` and each one's metadata as JSON.

    Raises `BadInput` for counts that differ, another width or length, and what is no text or no JSON.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    rows: Sequence[Metadata] = [{}] * len(ids) if metadata is None else metadata
    if vectors.shape != (len(ids), width) or len(rows) != len(ids):
        expected = f"{len(ids)} vectors of width {width}"
        raise BadInput(f"{place}: expected {expected}, got {list(vectors.shape)} and {len(rows)} metadata")
    for id, length in zip(ids, np.linalg.norm(vectors, axis=1), strict=True):
        if not abs(length - 1) <= UNIT_TOLERANCE:
            raise BadInput(f"{place}: expected vectors of length 1, got {length:g} for {id!r:.200}")
        if not isinstance(id, str) or not _unicode(id):
            raise BadInput(f"{place}: expected ids of Unicode text, got {id!r:.200}")
    return vectors, [_json(place, id, row) for id, row in zip(ids, rows, strict=True)]


def queries(place: object, width: int, vectors: Any, top: int) -> Vectors:
    """Queries as float32 `[Q, D]`. Raises `BadInput` for another shape, one that is not finite, and `top` below 1."""
    found = np.asarray(vectors, dtype=np.float32)
    if found.ndim != 2 or found.shape[1] != width:
        raise BadInput(f"{place}: expected queries [Q, {width}], got {list(found.shape)}")
    if not np.isfinite(found).all():
        raise BadInput(f"{place}: expected finite queries, got NaN or infinity")
    if top < 1:
        raise BadInput(f"{place}: expected at least 1 hit to look for, got {top}")
    return found


def new_folder(folder: Path, index: str) -> None:
    """Raises `BadInput` where an index cannot be made. An index is known by the file or folder `index`."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder for an index, got a file")
    if folder.is_dir() and any(folder.iterdir()):
        got = "an index" if (folder / index).exists() else "other files"
        raise BadInput(f"{folder}: expected a new or empty folder for an index, got one with {got}")


def folder_with(folder: Path, index: str) -> None:
    """Raises `BadInput` where there is no index."""
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise BadInput(f"{folder}: expected an index, got {got}; make one with `vlm index DIR --to {folder}`")
    if not (folder / index).exists():
        raise BadInput(f"{folder}: expected an index, got a folder without {index}")


def same(place: object, model: str, width: int, wanted: str | None, wide: int | None) -> None:
    """Raises `BadInput` where an index is another model's or of another width than wanted."""
    if wanted is not None and model != wanted:
        raise BadInput(f"{place}: expected an index of model {wanted}, got one of {model}; index anew")
    if wide is not None and width != wide:
        raise BadInput(f"{place}: expected vectors of width {wide}, got {width}")


def changeable(place: object, snapshot: str | None) -> None:
    """Raises `BadInput` for a snapshot."""
    if snapshot is not None:
        raise BadInput(f"{place}: snapshot {snapshot} cannot be changed; open the index without it")


def _json(place: object, id: str, row: object) -> str:
    if isinstance(row, dict):
        try:
            text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"{place}: expected metadata of JSON for {id!r:.200}, got {error}") from None
        # A half of a surrogate pair is no text, and engines keep integers in 64 bits.
        if _unicode(text) and _integers_fit(row):
            return text
        raise BadInput(f"{place}: expected metadata of Unicode text and integers of 64 bits for {id!r:.200}")
    raise BadInput(f"{place}: expected metadata to be an object, got {type(row).__name__} for {id!r:.200}")


def _unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integers_fit(value: object) -> bool:
    if isinstance(value, dict):
        return all(_integers_fit(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return all(_integers_fit(inner) for inner in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63

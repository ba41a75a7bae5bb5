"""The embedded index: unit vectors in one array, an exact scan, files that a kill cannot leave half written.

    <folder>/vectors-<generation>.safetensors   the vectors, float32 [N, D]
    <folder>/entries-<generation>.jsonl         one {"id", "metadata"} a row
    <folder>/manifest.json                      written last: names the generation, its model, its width, its hashes

A reader sees the generation that the manifest names; the rename of the manifest is the moment a save takes place.

N entries, Q queries, C candidates, D width.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vlm.config import Config
from vlm.errors import BadInput
from vlm.files import atomic_write

Vectors = NDArray[np.float32]
Metadata = Mapping[str, Any]

MANIFEST = "manifest.json"
UNIT_TOLERANCE = 1e-3
ROUGH = 1e-5
"""More than two orders of summation can differ by, for unit vectors."""


class Manifest(Config):
    """What `manifest.json` says."""

    kind: str
    version: int
    model: str
    width: int
    count: int
    files: dict[str, str]
    """Name -> sha256, the vectors' file first."""


@dataclass(frozen=True)
class Hit:
    """An entry and the inner product of its vector with the query."""

    id: str
    score: float
    metadata: Metadata


class FlatIndex:
    """Ids, unit vectors and metadata of one model's space. Changes stay in memory until `save`."""

    def __init__(self, folder: Path, width: int, model: str):
        self.folder, self.width, self.model = folder, width, model
        self._ids: list[str] = []
        self._metadata: list[Metadata] = []
        self._row: dict[str, int] = {}
        self._buffer: Vectors = np.zeros((0, width), dtype=np.float32)

    @classmethod
    def create(cls, folder: str | Path, width: int, model: str) -> FlatIndex:
        """An empty index; the folder is made on `save`. Raises `BadInput` where something else is there already."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"{folder}: expected a folder for an index, got a file")
        if folder.is_dir() and any(folder.iterdir()):
            got = "an index" if (folder / MANIFEST).is_file() else "other files"
            raise BadInput(f"{folder}: expected a new or empty folder for an index, got one with {got}")
        return cls(folder, width, model)

    @classmethod
    def open(cls, folder: str | Path, *, model: str | None = None, width: int | None = None) -> FlatIndex:
        """The index last saved in `folder`.

        Raises `BadInput` where there is none, where it is damaged, or where its model or width is not the one given.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        if model is not None and manifest.model != model:
            raise BadInput(f"{folder}: expected an index of model {model}, got one of {manifest.model}; index anew")
        if width is not None and manifest.width != width:
            raise BadInput(f"{folder}: expected vectors of width {width}, got {manifest.width}")
        index = cls(folder, manifest.width, manifest.model)
        try:
            vectors, entries = (_read(folder / name, sha256) for name, sha256 in manifest.files.items())
            rows = [json.loads(line) for line in entries.splitlines()]
            index.upsert([row["id"] for row in rows], load(vectors)["vectors"], [row["metadata"] for row in rows])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, BadInput) as error:
            raise BadInput(f"{folder}: damaged index: {error}; delete it and index anew") from None
        if len(index) != manifest.count:
            raise BadInput(f"{folder}: damaged index: expected {manifest.count} entries, got {len(index)}")
        return index

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __contains__(self, id: object) -> bool:
        return id in self._row

    def metadata(self, id: str) -> Metadata:
        return self._metadata[self._row[id]]

    def vector(self, id: str) -> Vectors:
        """float32 `[D]`."""
        return self._buffer[self._row[id]].copy()

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata] | None = None) -> None:
        """Add entries, or replace those whose id is known. `vectors` is `[len(ids), D]`, of unit length.

        Raises `BadInput` for counts, a width or a length that does not fit; nothing is changed then.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        rows = [{}] * len(ids) if metadata is None else metadata
        if vectors.shape != (len(ids), self.width) or len(rows) != len(ids):
            expected = f"{len(ids)} vectors of width {self.width}"
            raise BadInput(f"{self.folder}: expected {expected}, got {list(vectors.shape)} and {len(rows)} metadata")
        lengths = np.linalg.norm(vectors, axis=1)
        for id, length in zip(ids, lengths, strict=True):
            if not abs(length - 1) <= UNIT_TOLERANCE:
                raise BadInput(f"{self.folder}: expected vectors of length 1, got {length:g} for {id!r}")
        self._reserve(len(self) + len(ids))
        for id, vector, row in zip(ids, vectors, rows, strict=True):
            place = self._row.setdefault(id, len(self._ids))
            if place == len(self._ids):
                self._ids.append(id)
                self._metadata.append(row)
            self._metadata[place] = row
            self._buffer[place] = vector

    def search(self, vectors: Vectors, top: int) -> list[list[Hit]]:
        """The `top` nearest entries of each query `[Q, D]`, best first; ties keep the order of insertion.

        Raises `BadInput` for another width. Each query is scanned by itself, so a batch gives what single calls give.
        """
        queries = np.asarray(vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise BadInput(f"{self.folder}: expected queries [Q, {self.width}], got {list(queries.shape)}")
        if top < 1:
            raise BadInput(f"{self.folder}: expected at least 1 hit to look for, got {top}")
        return [self._nearest(query, min(top, len(self))) for query in queries]

    def delete(self, ids: Sequence[str]) -> int:
        """Remove entries; returns how many there were. Ids that are not in the index are passed over."""
        gone = {self._row[id] for id in ids if id in self._row}
        if gone:
            keep = [row for row in range(len(self)) if row not in gone]
            self._buffer = self._buffer[keep]
            self._ids = [self._ids[row] for row in keep]
            self._metadata = [self._metadata[row] for row in keep]
            self._row = {id: row for row, id in enumerate(self._ids)}
        return len(gone)

    def save(self) -> None:
        """Write a new generation and let the manifest name it; older ones are removed afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        generation = uuid.uuid4().hex[:12]
        rows = ({"id": id, "metadata": dict(row)} for id, row in zip(self._ids, self._metadata, strict=True))
        contents = {
            f"vectors-{generation}.safetensors": save({"vectors": np.ascontiguousarray(self._buffer[: len(self)])}),
            f"entries-{generation}.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        }
        for name, content in contents.items():
            atomic_write(self.folder / name, content)
        manifest = Manifest(
            kind="vlm-flat-index",
            version=1,
            model=self.model,
            width=self.width,
            count=len(self),
            files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        )
        atomic_write(self.folder / MANIFEST, manifest.model_dump_json(indent=1))
        for pattern in ("vectors-*", "entries-*", ".vectors-*", ".entries-*", f".{MANIFEST}.*"):
            for old in self.folder.glob(pattern):
                if old.name not in contents:
                    old.unlink(missing_ok=True)

    def _nearest(self, query_D: Vectors, top: int) -> list[Hit]:
        if top == 0:
            return []
        rough_N = self._buffer[: len(self)] @ query_D
        rows_C = np.flatnonzero(rough_N >= np.partition(rough_N, -top)[-top] - ROUGH)
        # A matrix product's last bits depend on where a row lies; the candidates are scored again row by row.
        scores_C = np.einsum("cd,d->c", self._buffer[rows_C], query_D)
        best = np.argsort(-scores_C, kind="stable")[:top]
        return [Hit(self._ids[rows_C[c]], float(scores_C[c]), self._metadata[rows_C[c]]) for c in best]

    def _reserve(self, count: int) -> None:
        """Room for `count` rows; grown by half at least, so that many small upserts stay cheap."""
        if count > len(self._buffer):
            grown = np.zeros((max(count, len(self._buffer) * 3 // 2), self.width), dtype=np.float32)
            grown[: len(self)] = self._buffer[: len(self)]
            self._buffer = grown


def _manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise BadInput(f"{folder}: expected an index, got {got}; make one with `vlm index DIR --to {folder}`")
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{folder}: expected an index, got a folder without {MANIFEST}") from None
    except (OSError, ValueError):
        raise BadInput(f"{folder}: damaged index: {MANIFEST} cannot be read; delete it and index anew") from None
    if (manifest.kind, manifest.version, len(manifest.files)) != ("vlm-flat-index", 1, 2):
        raise BadInput(f"{folder}: expected a vlm-flat-index of version 1, got {manifest.kind} {manifest.version}")
    return manifest


def _read(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path.name} is not as it was written")
    return content

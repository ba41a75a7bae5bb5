"""The flat index: an exact scan in memory, and files that a kill cannot leave half written.

    <folder>/vectors-<generation>.safetensors   the vectors, float32 [N, D]
    <folder>/entries-<generation>.jsonl         one {"id", "metadata"} a row
    <folder>/manifest.json                      written last: names the generation, its model, its width, its hashes
    <folder>/spare                              nothing: room for what has to be written when the disk is full
    <folder>/snapshot-<generation>.json         a manifest that was kept, whose files are kept with it

A reader sees the generation that the manifest names; the rename of the manifest is the moment a commit takes place.

N entries, D width.
"""

from __future__ import annotations

import errno
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vlm.config import Config
from vlm.errors import BadInput
from vlm.files import atomic_write
from vlm.index import checks
from vlm.index.base import Hit, Index, Metadata, Vectors, Where
from vlm.index.memory import Entries

MANIFEST = "manifest.json"
SPARE, SPARE_BYTES = "spare", 2**18
"""Room for a manifest that says what was deleted."""


class Manifest(Config):
    """What `manifest.json` says."""

    kind: str
    version: int
    model: str
    width: int
    count: int
    files: dict[str, str]
    """Name -> sha256, the vectors' file first."""
    gone: list[str] = Field(default_factory=list)
    """Entries of these files that were deleted when there was no room to write the others anew."""


class FlatIndex(Index):
    """Entries in memory, one folder on disk. Changes stay in memory until `commit`, which writes all entries."""

    def __init__(self, folder: Path, width: int, model: str):
        self.folder, self.width, self.model = folder, width, model
        self._entries = Entries(width)
        self._writing = threading.RLock()
        self._manifest: Manifest | None = None
        """The last that was written or read."""
        self._grown = False
        """Whether anything was upserted since."""
        self._frozen: str | None = None
        """The snapshot that this is, which does not change."""

    @classmethod
    def create(cls, folder: str | Path, width: int, model: str) -> FlatIndex:
        """An empty index; the folder is made on `commit`. Raises `BadInput` where something else is there already."""
        folder = Path(folder)
        checks.new_folder(folder, MANIFEST)
        return cls(folder, width, model)

    @classmethod
    def open(
        cls, folder: str | Path, *, model: str | None = None, width: int | None = None, snapshot: str | None = None
    ) -> FlatIndex:
        """The index last committed in `folder`, or as it was at a snapshot.

        Raises `BadInput` where there is none, where it is damaged, or where its model or width is not the one given.
        """
        folder = Path(folder)
        if snapshot is not None and not snapshot.isalnum():
            raise BadInput(f"{folder}: expected the name of a snapshot, got {snapshot!r:.80}")
        manifest = _manifest(folder, MANIFEST if snapshot is None else f"snapshot-{snapshot}.json")
        checks.same(folder, manifest.model, manifest.width, model, width)
        index = cls(folder, manifest.width, manifest.model)
        try:
            vectors, entries = (_read(folder / name, sha256) for name, sha256 in manifest.files.items())
            rows = [json.loads(line) for line in entries.splitlines()]
            index.upsert([row["id"] for row in rows], load(vectors)["vectors"], [row["metadata"] for row in rows])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, BadInput) as error:
            raise BadInput(f"{folder}: damaged index: {error}; delete it and index anew") from None
        if len(index) != manifest.count:
            raise BadInput(f"{folder}: damaged index: expected {manifest.count} entries, got {len(index)}")
        index._entries.delete(manifest.gone)
        index._frozen, index._manifest, index._grown = snapshot, manifest, False
        return index

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, id: object) -> bool:
        return id in self._entries

    def metadata(self, id: str) -> Metadata:
        return self._entries.metadata(id)

    def vector(self, id: str) -> Vectors:
        return self._entries.vector(id)

    def items(self) -> Iterator[tuple[str, Metadata]]:
        return self._entries.items()

    def known(self, ids: Sequence[str]) -> dict[str, Metadata]:
        return self._entries.known(ids)

    def vectors(self) -> tuple[list[str], Vectors]:
        return self._entries.vectors()

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata] | None = None) -> None:
        vectors, rows = checks.entries(self.folder, self.width, ids, vectors, metadata)
        checks.changeable(self.folder, self._frozen)
        self._grown = True
        self._entries.upsert(ids, vectors, [json.loads(row) for row in rows])

    def delete(self, ids: Sequence[str]) -> int:
        checks.changeable(self.folder, self._frozen)
        return self._entries.delete(ids)

    def search(
        self, vectors: Vectors, top: int, *, where: Where | None = None, min_score: float | None = None
    ) -> list[list[Hit]]:
        """Ties keep the order of insertion; a batch gives what single calls give."""
        return self._entries.search(checks.queries(self.folder, self.width, vectors, top), top, where, min_score)

    def count(self, where: Where | None = None) -> int:
        return self._entries.count(where)

    def commit(self) -> None:
        """Write a new generation and let the manifest name it; older ones are removed afterwards.

        Where the disk is full and entries were only deleted, the manifest alone says so: a full disk can be emptied.
        """
        checks.changeable(self.folder, self._frozen)
        with self._writing:
            try:
                self._write()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or self._grown or self._manifest is None:
                    raise
                self._write_gone(self._manifest)

    def snapshot(self) -> str:
        checks.changeable(self.folder, self._frozen)
        with self._writing:
            generation, manifest = self._write()
            atomic_write(self.folder / f"snapshot-{generation}.json", manifest)
        return generation

    def snapshots(self) -> list[str]:
        kept = sorted(self.folder.glob("snapshot-*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [path.stem.removeprefix("snapshot-") for path in kept]

    def drop_snapshot(self, name: str) -> None:
        checks.changeable(self.folder, self._frozen)
        with self._writing:
            if name not in self.snapshots() or self._manifest is None:
                raise KeyError(name)
            (self.folder / f"snapshot-{name}.json").unlink()
            self._tidy(set(self._manifest.files))

    def compact(self) -> None:
        checks.changeable(self.folder, self._frozen)
        with self._writing:
            for kept in self.folder.glob("snapshot-*.json"):
                kept.unlink(missing_ok=True)
            self._write()

    def close(self) -> None:
        self._entries = Entries(self.width)

    def _write(self) -> tuple[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        generation = uuid.uuid4().hex[:12]
        ids, vectors, metadata = self._entries.all()
        rows = ({"id": id, "metadata": row} for id, row in zip(ids, metadata, strict=True))
        contents = {
            f"vectors-{generation}.safetensors": save({"vectors": np.ascontiguousarray(vectors)}),
            f"entries-{generation}.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        }
        for name, content in contents.items():
            atomic_write(self.folder / name, content)
        manifest = Manifest(
            kind="vlm-flat-index",
            version=1,
            model=self.model,
            width=self.width,
            count=len(ids),
            files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        )
        said = _said(manifest)
        atomic_write(self.folder / MANIFEST, said)
        self._manifest, self._grown = manifest, False
        with suppress(OSError):
            atomic_write(self.folder / SPARE, bytes(SPARE_BYTES))
        self._tidy(set(contents))
        return generation, said

    def _write_gone(self, written: Manifest) -> None:
        """Where a manifest does not fit either, it takes the room of the file that is kept for that."""
        self._tidy(set(written.files))  # what is half written
        files = [self.folder / name for name in written.files]
        ids = [json.loads(line)["id"] for line in files[1].read_bytes().splitlines()]
        gone = written.model_copy(update={"gone": [id for id in ids if id not in self._entries]})
        try:
            atomic_write(self.folder / MANIFEST, _said(gone))
        except OSError:
            (self.folder / SPARE).unlink(missing_ok=True)
            atomic_write(self.folder / MANIFEST, _said(gone))
        self._manifest = gone

    def _tidy(self, named: set[str]) -> None:
        """Remove what neither the manifest nor a snapshot names."""
        for kept in self.folder.glob("snapshot-*.json"):
            named |= _manifest(self.folder, kept.name).files.keys()
        for pattern in ("vectors-*", "entries-*", ".vectors-*", ".entries-*", ".snapshot-*", f".{MANIFEST}.*"):
            for old in self.folder.glob(pattern):
                if old.name not in named:
                    old.unlink(missing_ok=True)


def _said(manifest: Manifest) -> str:
    """As it was before entries could be `gone`, where none are."""
    return manifest.model_dump_json(indent=1, exclude_defaults=True)


def _manifest(folder: Path, name: str) -> Manifest:
    checks.folder_with(folder, name)
    try:
        manifest = Manifest.model_validate_json((folder / name).read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{folder}: damaged index: {name} cannot be read; delete it and index anew") from None
    if (manifest.kind, manifest.version, len(manifest.files)) != ("vlm-flat-index", 1, 2):
        raise BadInput(f"{folder}: expected a vlm-flat-index of version 1, got {manifest.kind} {manifest.version}")
    return manifest


def _read(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path.name} is not as it was written")
    return content

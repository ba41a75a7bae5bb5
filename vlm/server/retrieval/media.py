"""What a collection keeps beside its vectors: a small picture of each item, uploaded clips, their frames' vectors, and
pictures as they came where that was asked for.

Files are named by the upsert that made them, never by a caller, so that replacing an item overwrites nothing; the old
ones go when the new entry is durable.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from vlm.files import atomic_path, atomic_write
from vlm.server.embedding.queued import Frames

KEY = re.compile(r"[0-9a-f]{32}")
SMALL, FRAMES, ORIGINAL = ".jpg", ".frames", ".original"
"""A clip has its own suffix."""


class Media:
    """Files in one folder, a few for each key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(
        self, thumbnail: bytes | None, clip: Path | None, frames: Frames | None, original: bytes | None = None
    ) -> str:
        """The key of what is kept. `clip` is moved here."""
        with self._new() as key:
            if thumbnail is not None:
                atomic_write(self._path(key, SMALL), thumbnail)
            if original is not None:
                atomic_write(self._path(key, ORIGINAL), original)
            if clip is not None:
                self._path(key, "").parent.mkdir(exist_ok=True)
                shutil.move(clip, self._path(key, clip.suffix))
            if frames is not None:
                self._write(key, frames)
        return key

    def keep_again(self, old: str, frames: Frames | None) -> str:
        """The key of the same with other vectors of its frames. The files themselves are there but once, where the file
        system has links."""
        with self._new() as key:
            self._path(key, "").parent.mkdir(exist_ok=True)
            for path in self._all(old):
                if path.suffix != FRAMES:
                    _link(path, self._path(key, path.suffix))
            if frames is not None:
                self._write(key, frames)
        return key

    @contextmanager
    def _new(self) -> Iterator[str]:
        """A key, of which nothing stays where it cannot be written."""
        key = uuid.uuid4().hex
        try:
            yield key
        except OSError:
            self.forget([key])
            raise

    def _write(self, key: str, frames: Frames) -> None:
        rows = {"vectors": frames.vectors, "times": np.array([*frames.times, frames.duration])}
        atomic_write(self._path(key, FRAMES), save(rows))

    def thumbnail(self, key: str) -> Path | None:
        return self._existing(key, SMALL)

    def original(self, key: str) -> Path | None:
        """A picture as it came."""
        return self._existing(key, ORIGINAL)

    def clip(self, key: str) -> Path | None:
        found = [path for path in self._all(key) if path.suffix not in (SMALL, FRAMES, ORIGINAL)]
        return found[0] if found else None

    def frames(self, key: str) -> Frames | None:
        path = self._existing(key, FRAMES)
        if path is None:
            return None
        rows = load_file(path)
        *times, duration = rows["times"].tolist()
        return Frames(rows["vectors"], tuple(times), duration)

    def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            for path in self._all(key):
                path.unlink(missing_ok=True)

    def sweep(self, live: set[str]) -> int:
        """Remove what no entry names, which a kill can leave; how many files."""
        gone = [path for path in self.folder.glob("*/*") if path.name.lstrip(".").partition(".")[0] not in live]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _path(self, key: str, suffix: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"no key: {key!r}")
        return self.folder / key[:2] / (key + suffix)

    def _existing(self, key: str, suffix: str) -> Path | None:
        path = self._path(key, suffix)
        return path if path.is_file() else None

    def _all(self, key: str) -> list[Path]:
        return list(self._path(key, "").parent.glob(f"{key}*"))


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # a file system without links
        with atomic_path(to) as copy:
            shutil.copyfile(path, copy)

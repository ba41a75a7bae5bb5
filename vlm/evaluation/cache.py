"""Answers and vectors already computed, by the content of the request: what makes a killed evaluation resume."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm.errors import BadInput
from vlm.media.open import Media

_DIGEST = 16  # bytes
_PATIENCE = 60.0  # seconds for other runs that write
_AT_ONCE = 500  # keys of one query; SQLite allows about a thousand variables


class RequestCache:
    """Key -> bytes in one SQLite file, or in memory. What `put` returned from survives a kill.

    SQLite sees damage to its own structure but not to what it holds: each value has a digest before it.
    """

    def __init__(self, path: Path | None = None):
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BadInput(f"{path.parent}: cannot be made: {error.strerror or error}") from None
        self._path = path
        with self._readable():
            self._database = sqlite3.connect(path or ":memory:", timeout=_PATIENCE)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, value BLOB NOT NULL)")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # locked by another run, a full disk
            raise BadInput(f"{self._path}: the request cache cannot be used: {error}") from None
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{self._path}: damaged, or no request cache: {error}; delete it to begin anew") from None

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values there are; one that is damaged is not there."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            with self._readable():
                rows = self._database.execute(
                    f"SELECT key, value FROM requests WHERE key IN ({marks})", some
                ).fetchall()
            found |= {key: value[_DIGEST:] for key, value in rows if _is_whole(key, value)}
        return found

    def put(self, values: Mapping[str, bytes]) -> None:
        with self._readable(), self._database:
            rows = ((key, _sealed(key, value)) for key, value in values.items())
            self._database.executemany("INSERT OR REPLACE INTO requests VALUES (?, ?)", rows)

    def close(self) -> None:
        self._database.close()


def _sealed(key: str, value: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + value, digest_size=_DIGEST).digest() + value


def _is_whole(key: str, value: Any) -> bool:
    return isinstance(value, bytes) and _sealed(key, value[_DIGEST:]) == value


def key_of(request: Mapping[str, Any]) -> str:
    """sha256 of a request: everything its answer depends on."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def pixels_of(media: Media) -> str:
    """sha256 of what a model sees of a picture or clip: sizes, pixels, times."""
    digest = hashlib.sha256(json.dumps(media.times).encode())
    for part in _parts(media):
        digest.update(part)
    return digest.hexdigest()


def _parts(media: Media) -> Iterable[bytes]:
    for frame in media.frames:
        yield f"{frame.mode}{frame.size}".encode()
        yield frame.tobytes()

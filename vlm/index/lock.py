"""One process writes at a time. The system lets go of the lock when the process ends, however it ends."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from vlm.errors import VlmError


class WriterLock:
    """A lock on a file, taken by the first change and kept. Without a path, or without `flock`, it locks nothing."""

    def __init__(self, path: Path | None):
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self, place: str) -> bool:
        """True where this call took it. Raises `VlmError` where another process has it."""
        if self._path is None or self._file is not None:
            return False
        try:
            import fcntl
        except ImportError:
            return False
        file = self._path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise VlmError(f"{place}: another process is writing to this index; try again when it has ended") from None
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

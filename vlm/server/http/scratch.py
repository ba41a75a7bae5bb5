"""A folder for what strangers send, while it is needed: its owner alone reads it, and it goes when it is closed.

A process that is killed leaves its folder behind, and the next one of the same user takes it away. Which belong to
living processes says a lock on the folder itself, which the system lets go of however a process ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on every system: nothing says there who lives
    fcntl = None  # type: ignore[assignment]

PREFIX = "vlm-server-"


class Scratch:
    """In the system's place for temporary files (`TMPDIR`)."""

    def __init__(self) -> None:
        place = Path(tempfile.gettempdir()).resolve()
        _sweep(place)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            self._held = _hold(self.path)
            if self._held is not None or fcntl is None:
                break  # else one who sweeps had it before it was locked, and it goes

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._held is not None:
            os.close(self._held)


def of_this_process() -> Path:
    """A folder until it ends."""
    scratch = Scratch()
    atexit.register(scratch.close)
    return scratch.path


def _sweep(place: Path) -> None:
    for path in place.glob(f"{PREFIX}*"):
        if (held := _hold(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)


def _hold(path: Path) -> int | None:
    """A lock on a folder of this user's, an open file; None where another has it, or it has gone."""
    if fcntl is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        found = os.fstat(file)
        if found.st_uid == os.getuid():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(found, os.lstat(path)):  # else it was taken away between the two
                return file
    except OSError:
        pass
    os.close(file)
    return None

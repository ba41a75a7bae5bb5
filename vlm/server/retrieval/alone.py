"""A service's folder is one process's at a time: a server's, or that of a command that changes what lies there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from vlm.errors import BadInput


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """The folder is this process's until the end; the lock goes with the process however it ends.

    Raises `BadInput` where another has it.
    """
    with ExitStack() as held:
        try:
            root.mkdir(parents=True, exist_ok=True)
            _lock(held.enter_context((root / ".lock").open("a")), root)
        except OSError as error:
            raise BadInput(f"{root}: expected a folder that can be written, got: {error}") from None
        yield


def _lock(file: IO[str], root: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on every system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(f"{root}: expected a folder that no other server or `vlm reindex` uses") from None

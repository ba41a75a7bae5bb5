"""The retrieval server from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vlm.errors import BadInput
from vlm.index import there
from vlm.server.http.auth import Keys
from vlm.server.http.serving import check, run
from vlm.server.http.settings import Settings
from vlm.server.retrieval.app import create_app
from vlm.server.retrieval.embedder import THREADS, Embedder


def serve(
    settings: Settings,
    load: Callable[[], Embedder],
    *,
    host: str,
    port: int,
    keys: Keys | None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted.

    Raises `BadInput` before anything is served: without keys on an address that others reach, for a folder that is
    missing or in use, a port that is taken; and what loading raises.
    """
    check(settings, host, keys)
    for name, folder in settings.opened.items():
        if not there(folder):
            raise BadInput(f"--open {name}={folder}: expected a folder with an index of `vlm index`, got none")
    with _alone(settings.root):
        run(
            lambda failed: create_app(settings, lambda: _sharing_cores(load()), keys, failed),
            settings.limits, host, port, say,
        )  # fmt: skip


def _sharing_cores(embedder: Embedder) -> Embedder:
    """Some cores for each picture that is embedded at a time, instead of all of them for each."""
    if embedder.workers > 1:
        import torch

        torch.set_num_threads(min(THREADS, torch.get_num_threads()))  # of threads that begin from now on
    return embedder


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """The folder is this process's until the end; the lock goes with the process however it ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / ".lock").open("a")
    except OSError as error:
        raise BadInput(f"{root}: expected a folder that can be written, got: {error}") from None
    with file:
        _lock(file, root)
        yield


def _lock(file: IO[str], root: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on every system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(f"{root}: expected a folder that no other server uses") from None

"""The retrieval server from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from vlm.errors import BadInput
from vlm.index import there
from vlm.server.embedding.embedder import Embedder
from vlm.server.http.auth import Keys
from vlm.server.http.serving import check, run
from vlm.server.http.settings import Settings
from vlm.server.retrieval.alone import alone
from vlm.server.retrieval.app import create_app


def serve(
    settings: Settings,
    loads: Sequence[Callable[[], Embedder]],
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
    with prepared(settings, host, keys):
        run(lambda failed: create_app(settings, loads, keys, failed), settings.limits, host, port, say)


@contextmanager
def prepared(settings: Settings, host: str, keys: Keys | None) -> Iterator[None]:
    """What is asked for can be served, and the folder is this process's until the end. Raises `BadInput`."""
    check(settings, host, keys)
    for name, folder in settings.opened.items():
        if not there(folder):
            raise BadInput(f"--open {name}={folder}: expected a folder with an index of `vlm index`, got none")
    with alone(settings.root):
        yield

"""The chat server from its start to its end."""

from __future__ import annotations

from collections.abc import Callable

from vlm.server.chat.app import create_app
from vlm.server.chat.loaded import Loaded
from vlm.server.chat.settings import ChatSettings
from vlm.server.http.auth import Keys
from vlm.server.http.serving import check, run


def serve(
    settings: ChatSettings,
    load: Callable[[], Loaded],
    *,
    host: str,
    port: int,
    keys: Keys | None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted.

    Raises `BadInput` before anything is served: without keys on an address that others reach, for a folder that is
    missing; `VlmError` for a port that is taken; and what loading raises.
    """
    check(settings, host, keys)
    run(lambda failed: create_app(settings, load, keys, failed), settings.limits, host, port, say)

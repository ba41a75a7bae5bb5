"""Both servers as one: conversations and collections of one model, on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp

from vlm.server.chat import app as chat
from vlm.server.chat.loaded import Loaded
from vlm.server.chat.metrics import ChatMetrics
from vlm.server.chat.service import ChatService
from vlm.server.chat.settings import ChatLimits, ChatSettings
from vlm.server.http.app import Failed, finished, new_app
from vlm.server.http.auth import Keys
from vlm.server.http.metrics import Metrics
from vlm.server.http.serving import run
from vlm.server.http.settings import Settings
from vlm.server.http.state import Serving
from vlm.server.retrieval import app as retrieval
from vlm.server.retrieval.run import prepared
from vlm.server.retrieval.service import Service


class CombinedSettings(ChatSettings, Settings):
    """Of both."""

    limits: ChatLimits = ChatLimits()


class CombinedMetrics(Metrics, ChatMetrics):
    """Of both, in one registry."""


def create_app(
    settings: CombinedSettings,
    load: Callable[[], Loaded],
    keys: Keys | None = None,
    failed: Failed = lambda error: None,
) -> ASGIApp:
    """The server of `settings`, with the model that `load` gives, which writes and embeds. It answers while the model
    loads, and is ready then; `failed` is told where that does not come about. `keys` None lets everybody in."""
    metrics = CombinedMetrics()

    async def make() -> list[Serving]:
        loaded = await asyncio.to_thread(load)
        collections = Service(settings, loaded.embedders, metrics)
        await collections.collections.open()
        return [ChatService(settings, loaded, collections, metrics), collections]

    app = new_app("vlm", chat.OFFER + retrieval.OFFER, metrics, make, failed)
    return finished(app, settings, keys, metrics, [retrieval.part, chat.part])


def serve(
    settings: CombinedSettings,
    load: Callable[[], Loaded],
    *,
    host: str,
    port: int,
    keys: Keys | None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted. Raises as the retrieval server's does."""
    with prepared(settings, host, keys):
        run(lambda failed: create_app(settings, load, keys, failed), settings.limits, host, port, say)

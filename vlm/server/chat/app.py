"""The chat application: its routes, and around them what every server has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp

from vlm.server.chat.decisions import decisions
from vlm.server.chat.loaded import Loaded
from vlm.server.chat.metrics import ChatMetrics
from vlm.server.chat.plain import CaptionRequest, QuestionRequest, plain
from vlm.server.chat.routes import v1
from vlm.server.chat.service import ChatService
from vlm.server.chat.settings import ChatSettings
from vlm.server.http.app import Failed, describe, guarded, new_app
from vlm.server.http.auth import Keys
from vlm.server.http.signing import Signer


def create_app(
    settings: ChatSettings, load: Callable[[], Loaded], keys: Keys | None = None, failed: Failed = lambda error: None
) -> ASGIApp:
    """The server of `settings`, with the model that `load` gives. It answers while the model loads, and is ready then;
    `failed` is told where that does not come about. `keys` None lets everybody in who reaches it."""
    metrics = ChatMetrics()

    async def make() -> ChatService:
        return ChatService(settings, await asyncio.to_thread(load), metrics)

    app = new_app("vlm chat", metrics, make, failed)
    app.include_router(v1)
    app.include_router(plain)
    app.include_router(decisions)
    describe(app, CaptionRequest, QuestionRequest)
    outer, _ = guarded(app, settings, keys, Signer(), metrics)
    return outer

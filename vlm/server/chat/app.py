"""The chat application: its routes, and around them what every server has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import ASGIApp

from vlm.server.chat.decisions import decisions
from vlm.server.chat.loaded import Loaded
from vlm.server.chat.metrics import ChatMetrics
from vlm.server.chat.plain import CaptionRequest, QuestionRequest, plain
from vlm.server.chat.routes import v1
from vlm.server.chat.service import ChatService
from vlm.server.chat.session_routes import sessions
from vlm.server.chat.settings import ChatSettings
from vlm.server.embedding.routes import embedding
from vlm.server.embedding.service import Embedding
from vlm.server.http.about import about
from vlm.server.http.app import Behind, Failed, Offer, finished, new_app
from vlm.server.http.auth import Keys
from vlm.server.http.state import Serving, ready

if TYPE_CHECKING:
    from vlm.server.http.pages import Part

OFFER = Offer((v1, plain, decisions, sessions, embedding, about), (CaptionRequest, QuestionRequest))


def create_app(
    settings: ChatSettings, load: Callable[[], Loaded], keys: Keys | None = None, failed: Failed = lambda error: None
) -> ASGIApp:
    """The server of `settings`, with the model that `load` gives. It answers while the model loads, and is ready then;
    `failed` is told where that does not come about. `keys` None lets everybody in who reaches it."""
    metrics = ChatMetrics()

    async def make() -> list[Serving]:
        loaded = await asyncio.to_thread(load)
        vectors = Embedding(settings, loaded.embedders, metrics)
        return [ChatService(settings, loaded, vectors, metrics), vectors]

    app = new_app("vlm chat", OFFER, metrics, make, failed)
    return finished(app, settings, keys, metrics, [part])


def part(app: FastAPI, settings: ChatSettings, behind: Behind) -> Part:
    """Of the page."""
    from vlm.server.chat import page

    return page.part(lambda: ready(app, ChatService), settings, behind)

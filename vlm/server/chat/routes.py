"""The routes of a chat server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer

from vlm.engine.request import Usage
from vlm.server.chat.completion_schemas import ChatCompletion, ChatRequest
from vlm.server.chat.completions import chunks, completion, wanted
from vlm.server.chat.response_schemas import ResponsesRequest
from vlm.server.chat.responses import events, response, wanted_response
from vlm.server.chat.service import ChatService
from vlm.server.http.addresses import API
from vlm.server.http.auth import CLIENT
from vlm.server.http.events import EventStream, while_there
from vlm.server.http.remarks import remark
from vlm.server.http.state import ERRORS, ready

v1 = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])


def service(request: Request) -> ChatService:
    return ready(request.app, ChatService)


@dataclass(frozen=True)
class Asker:
    """Who asks: whose turn it is, by the fingerprint of a key, and whose line of a log says what it cost."""

    name: str
    noted: Callable[[Usage], None]


def asker(request: Request) -> Asker:
    def noted(usage: Usage) -> None:
        remark(request.scope, **vars(usage))

    return Asker(request.scope.get(CLIENT, ""), noted)


Served = Annotated[ChatService, Depends(service)]
Asks = Annotated[Asker, Depends(asker)]
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@v1.post("/chat/completions", response_model=ChatCompletion, responses=STREAMED)
async def create_completion(
    served: Served, asker: Asks, body: ChatRequest, request: Request
) -> ChatCompletion | Response:
    """As OpenAI's; with `stream`, server-sent events."""
    asked = replace(wanted(served, body), client=asker.name, noted=asker.noted)
    answering = await while_there(request, served.answering(asked, streams=bool(body.stream)))
    if body.stream:
        return EventStream(chunks(served, answering, body), answering.close)
    try:
        return await while_there(request, completion(served, answering, body))
    finally:
        await answering.close()


@v1.post("/responses", response_model=None, responses=STREAMED)
async def create_response(
    served: Served, asker: Asks, body: ResponsesRequest, request: Request
) -> dict[str, object] | Response:
    """As OpenAI's, of texts and pictures; nothing is kept of it."""
    asked = replace(wanted_response(served, body), client=asker.name, noted=asker.noted)
    answering = await while_there(request, served.answering(asked, streams=bool(body.stream)))
    if body.stream:
        return EventStream(events(served, answering, body), answering.close)
    try:
        return await while_there(request, response(served, answering, body))
    finally:
        await answering.close()

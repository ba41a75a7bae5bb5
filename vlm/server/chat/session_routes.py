"""`/v1/sessions`: conversations whose read state is kept in files, so that a server that begins anew need not read them
again. A session belongs to the key that made it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer

from vlm.conversation.messages import Conversation, read_messages
from vlm.server.chat.routes import Asks, Served
from vlm.server.chat.service import Answering, ChatService, Wanted, with_media
from vlm.server.chat.session_schemas import (
    SessionAnswer,
    SessionConversation,
    SessionName,
    SessionRequest,
    SessionsAnswer,
)
from vlm.server.chat.session_store import SessionStore
from vlm.server.chat.wishes import shown
from vlm.server.http.addresses import API
from vlm.server.http.errors import ApiError
from vlm.server.http.events import while_there
from vlm.server.http.remarks import remark
from vlm.server.http.schemas import Error
from vlm.server.http.state import ERRORS

FULL: dict[int | str, dict[str, Any]] = {507: {"model": Error, "description": "No room for it; nothing was changed"}}
sessions = APIRouter(
    prefix=f"/{API}/sessions", responses=ERRORS | FULL, dependencies=[Depends(HTTPBearer(auto_error=False))]
)


def store(served: Served) -> SessionStore:
    if served.sessions is None:
        raise ApiError(404, "no_sessions", "this server keeps no sessions: it was started without --sessions")
    return served.sessions


Kept = Annotated[SessionStore, Depends(store)]


@sessions.get("", response_model_exclude_none=True)
async def list_sessions(kept: Kept, asker: Asks) -> SessionsAnswer:
    """Those of this key."""
    return SessionsAnswer(data=await kept.listed(asker.name))


@sessions.post("/{name:part}", response_model_exclude_none=True)
async def save_session(
    served: Served, kept: Kept, asker: Asks, name: str, body: SessionRequest, request: Request
) -> SessionAnswer:
    """Read a conversation, as far as it is not read, and write it under this name."""
    kept.path(asker.name, name)
    wanted = replace(_wanted(served, body), client=asker.name, noted=asker.noted)
    answering = await while_there(request, served.answering(wanted, streams=False))
    try:
        await while_there(request, _read(answering))
        said = await asyncio.to_thread(_said, served, wanted, answering)
        remark(request.scope, session=name)
        return await kept.save(asker.name, name, said)
    finally:
        await answering.close()


@sessions.get("/{name:part}", response_model_exclude_none=True)
async def get_session(kept: Kept, asker: Asks, name: str) -> SessionConversation:
    """With all that was said, and the pictures that were shown."""
    return await kept.conversation(asker.name, name)


@sessions.post("/{name:part}/restore", response_model_exclude_none=True)
async def restore_session(kept: Kept, asker: Asks, name: str) -> SessionAnswer:
    """What was read of it is known: conversations of this key that begin alike find it read."""
    return await kept.restore(asker.name, name)


@sessions.delete("/{name:part}")
async def delete_session(kept: Kept, asker: Asks, name: str, request: Request) -> SessionName:
    await kept.delete(asker.name, name)
    remark(request.scope, session=name)
    return SessionName(name=name)


def _wanted(served: ChatService, body: SessionRequest) -> Wanted:
    """A reply of one token, for which all is read."""
    served.check_model(body.model)
    said = [(message.role, message.content) for message in body.messages]
    messages, media = shown(said, body, served.loaded.sampling, served.limits)
    return Wanted(messages, media, max_tokens=1)


async def _read(answering: Answering) -> None:
    async for _ in answering.pieces():
        pass


def _said(served: ChatService, wanted: Wanted, answering: Answering) -> Conversation:
    messages = with_media(wanted.messages, answering.media)
    return read_messages(messages, None, served.loaded.processor.placeholders)

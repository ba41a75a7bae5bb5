"""`/v1/chat/completions`: a reply gathered, or told as it is written."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi.sse import ServerSentEvent

from vlm.engine.request import Piece, Token
from vlm.engine.request import Usage as Used
from vlm.server.chat.completion_schemas import ChatCompletion, ChatRequest, Choice, Logprobs, Said, SchemaFormat
from vlm.server.chat.service import Answering, ChatService, Wanted
from vlm.server.chat.telling import logprobs, reason, seen, usage
from vlm.server.chat.wishes import constraint, sampling, shown
from vlm.server.http.errors import ApiError
from vlm.server.http.events import SILENCE, SILENCE_SECONDS

DONE = ServerSentEvent(raw_data="[DONE]")


def wanted(service: ChatService, asked: ChatRequest) -> Wanted:
    """Raises `ApiError` for another model, and for more than the limits."""
    service.check_model(asked.model)
    choices = asked.n or 1
    if choices > service.limits.choices:
        raise ApiError(422, "invalid", f"n: expected at most {service.limits.choices}, got {choices}")
    said = [(message.role, message.content) for message in asked.messages]
    messages, media = shown(said, asked, service.loaded.sampling, service.limits)
    return Wanted(
        messages,
        media,
        sampling=sampling(asked, choices, bool(asked.logprobs)),
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        stop=asked.stops,
        constrain=constraint(asked, _schema(asked)),
        n=choices,
    )


def _schema(asked: ChatRequest) -> dict[str, Any] | None:
    if isinstance(asked.response_format, SchemaFormat):
        return asked.response_format.json_schema.schema_
    json = asked.response_format is not None and asked.response_format.type == "json_object"
    return {"type": "object"} if json else None


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


async def completion(service: ChatService, answering: Answering, asked: ChatRequest) -> ChatCompletion:
    """The whole reply."""
    texts = [""] * (asked.n or 1)
    tokens: list[list[Token]] = [[] for _ in texts]
    ends: list[Piece | None] = [None for _ in texts]
    used: Used | None = None
    async for piece in answering.pieces():
        assert piece is not None
        texts[piece.choice] += piece.text
        tokens[piece.choice] += piece.tokens
        ends[piece.choice] = piece if piece.finish else None
        used = piece.usage or used
    assert used is not None
    return ChatCompletion(
        id=new_id("chatcmpl"),
        created=int(time.time()),
        model=service.loaded.name,
        choices=[
            Choice(
                index=index,
                message=Said(content=text),
                logprobs=Logprobs(content=logprobs(service.loaded.processor, said)) if asked.logprobs else None,
                **_end(end),
            )
            for index, (text, said, end) in enumerate(zip(texts, tokens, ends, strict=True))
        ],
        usage=usage(used, seen(service.loaded.processor, answering.prompt, answering.media)),
    )


async def chunks(service: ChatService, answering: Answering, asked: ChatRequest) -> AsyncIterator[ServerSentEvent]:
    """The reply as it comes, in OpenAI's chunks; how it ended is in the last one of each choice."""
    with_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    about = {
        "id": new_id("chatcmpl"), "object": "chat.completion.chunk", "created": int(time.time()),
        "model": service.loaded.name,
    }  # fmt: skip

    def chunk(choices: list[dict[str, Any]], used: dict[str, Any] | None = None) -> ServerSentEvent:
        return ServerSentEvent(data={**about, "choices": choices, **({"usage": used} if with_usage else {})})

    def choice(index: int, delta: dict[str, Any], said: Any = None, **end: Any) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": said, "finish_reason": None, **end}

    used: Used | None = None
    for index in range(asked.n or 1):
        yield chunk([choice(index, {"role": "assistant", "content": ""})])
    async for piece in answering.pieces(SILENCE_SECONDS):
        if piece is None:
            yield SILENCE
            continue
        used = piece.usage or used
        said = None
        if asked.logprobs and piece.tokens:
            said = Logprobs(content=logprobs(service.loaded.processor, piece.tokens)).model_dump()
        if piece.text or said:
            yield chunk([choice(piece.choice, {"content": piece.text}, said)])
        if piece.finish:
            yield chunk([choice(piece.choice, {}, **_end(piece))])
    if with_usage and used is not None:
        told = usage(used, seen(service.loaded.processor, answering.prompt, answering.media))
        yield chunk([], told.model_dump())
    yield DONE


def _end(piece: Piece | None) -> dict[str, Any]:
    assert piece is not None
    assert piece.finish is not None
    end: dict[str, Any] = {"finish_reason": reason(piece.finish)}
    return end | ({"stop_reason": "deadline"} if piece.finish == "deadline" else {})

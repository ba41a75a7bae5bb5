"""`/v1/responses`: a reply as OpenAI's newer interface has it, gathered or in its events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi.sse import ServerSentEvent

from vlm.engine.request import Finish
from vlm.engine.request import Usage as Used
from vlm.errors import BadInput
from vlm.server.chat.completions import new_id
from vlm.server.chat.response_schemas import ResponsesRequest
from vlm.server.chat.service import Answering, ChatService, Wanted
from vlm.server.chat.telling import logprobs, reason, seen, usage
from vlm.server.chat.wishes import constraint, sampling, shown
from vlm.server.http.errors import ApiError
from vlm.server.http.events import SILENCE, SILENCE_SECONDS


def wanted_response(service: ChatService, asked: ResponsesRequest) -> Wanted:
    """Raises `ApiError` for another model, and for more than the limits."""
    service.check_model(asked.model)
    said: list[tuple[str, Any]] = [] if asked.instructions is None else [("system", asked.instructions)]
    if isinstance(asked.input, str):
        said.append(("user", asked.input))
    else:
        said += [(message.role, message.content) for message in asked.input]
    messages, media = shown(said, asked, service.loaded.sampling, service.limits)
    return Wanted(
        messages,
        media,
        sampling=sampling(asked, logprobs=asked.logprobs),
        max_tokens=asked.max_output_tokens,
        stop=asked.stops,
        constrain=constraint(asked, asked.schema_asked),
    )


@dataclass
class _Written:
    """What there is of a reply so far."""

    service: ChatService
    answering: Answering
    asked: ResponsesRequest
    id: str = field(default_factory=lambda: new_id("resp"))
    item_id: str = field(default_factory=lambda: new_id("msg"))
    created: float = field(default_factory=lambda: float(int(time.time())))
    text: str = ""
    tokens: list[Any] = field(default_factory=list)
    finish: Finish | None = None
    used: Used | None = None
    error: dict[str, str] | None = None

    async def pieces(self, patience: float | None = None) -> AsyncIterator[tuple[str, list[Any]] | None]:
        """What each piece adds: a text, and its tokens' chances where they were asked for."""
        async for piece in self.answering.pieces(patience):
            if piece is None:
                yield None
                continue
            self.text, self.used, self.finish = self.text + piece.text, piece.usage or self.used, piece.finish
            chances = logprobs(self.service.loaded.processor, piece.tokens) if self.asked.logprobs else []
            said = [{**chance.model_dump(), "bytes": chance.bytes or []} for chance in chances]
            self.tokens += said
            if piece.text or said:
                yield piece.text, said

    @property
    def status(self) -> str:
        if self.error is not None:
            return "failed"
        if self.finish is None:
            return "in_progress"
        return "completed" if reason(self.finish) == "stop" else "incomplete"

    def part(self, whole: bool = True) -> dict[str, Any]:
        text, tokens = (self.text, self.tokens) if whole else ("", [])
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": tokens}

    def item(self, whole: bool = True) -> dict[str, Any]:
        content = [self.part()] if whole else []
        status = self.status if whole else "in_progress"
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def response(self) -> dict[str, Any]:
        """All of it: what was asked, as it was applied, and what there is of the reply."""
        asked, ended = self.asked, self.finish is not None
        applied = sampling(asked, logprobs=asked.logprobs)
        why = {"reason": "deadline" if self.finish == "deadline" else "max_output_tokens"}
        form = None if asked.text is None else asked.text.format
        told = {"type", "name", "schema_"}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "error": self.error,
            "incomplete_details": why if self.status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self.service.loaded.name,
            "output": [self.item()] if ended else [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": applied.temperature,
            "text": {"format": {"type": "text"} if form is None else form.model_dump(by_alias=True, include=told)},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": applied.top_p,
            "truncation": "disabled",
            "usage": None if self.used is None else self._usage(self.used),
            "user": None,
        }

    def _usage(self, used: Used) -> dict[str, Any]:
        processor, answering = self.service.loaded.processor, self.answering
        told = usage(used, seen(processor, answering.prompt, answering.media))
        details = told.prompt_tokens_details
        return {
            "input_tokens": told.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": details.cached_tokens, "cache_write_tokens": 0, "image_tokens": details.image_tokens,
            },
            "output_tokens": told.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": told.total_tokens,
            "media": [one.model_dump() for one in told.media],
        }  # fmt: skip


async def response(service: ChatService, answering: Answering, asked: ResponsesRequest) -> dict[str, Any]:
    """The whole."""
    written = _Written(service, answering, asked)
    async for _ in written.pieces():
        pass
    return written.response()


async def events(service: ChatService, answering: Answering, asked: ResponsesRequest) -> AsyncIterator[ServerSentEvent]:
    """What happens to the one item of the reply, in OpenAI's order; what fails is `response.failed`."""
    written = _Written(service, answering, asked)
    number = -1

    def event(kind: str, **about: Any) -> ServerSentEvent:
        nonlocal number
        number += 1
        return ServerSentEvent(event=kind, data={"type": kind, "sequence_number": number, **about})

    place = {"item_id": written.item_id, "output_index": 0, "content_index": 0}
    yield event("response.created", response=written.response())
    yield event("response.in_progress", response=written.response())
    yield event("response.output_item.added", output_index=0, item=written.item(whole=False))
    yield event("response.content_part.added", **place, part=written.part(whole=False))
    try:
        async for new in written.pieces(SILENCE_SECONDS):
            if new is None:
                yield SILENCE
                continue
            text, chances = new
            yield event("response.output_text.delta", **place, delta=text, logprobs=chances)
    except (ApiError, BadInput) as error:
        written.error = {"code": "server_error", "message": str(getattr(error, "message", error))}
        yield event("response.failed", response=written.response())
        return
    yield event("response.output_text.done", **place, text=written.text, logprobs=written.tokens)
    yield event("response.content_part.done", **place, part=written.part())
    yield event("response.output_item.done", output_index=0, item=written.item())
    yield event(f"response.{written.status}", response=written.response())

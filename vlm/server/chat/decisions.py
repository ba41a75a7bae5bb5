"""`/v1/decisions` and `/v1/systemone`: typed questions about a conversation, answered by probabilities.

Answers carry beside what OpenAI and transformers have the mass of their labels, and the temperature that was applied
with its file. One request at a time is decided, in a thread of its own beside the engine's.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer

from vlm.conversation.messages import Conversation, read_messages
from vlm.errors import VlmError
from vlm.heads.decisions.decider import Decided
from vlm.heads.decisions.questions import Question, words
from vlm.heads.decisions.systemone import answer, content, read_questions
from vlm.media.open import Media
from vlm.models.processor import Prompt
from vlm.server.chat.asked import Looked
from vlm.server.chat.decision_schemas import Asset, DecisionsRequest, SystemOneRequest
from vlm.server.chat.media import Named
from vlm.server.chat.response_schemas import InputMessage
from vlm.server.chat.routes import Asks, Served
from vlm.server.chat.service import ChatService, with_media
from vlm.server.chat.wishes import shown
from vlm.server.http.addresses import API
from vlm.server.http.errors import ApiError
from vlm.server.http.events import while_there
from vlm.server.http.remarks import remark
from vlm.server.http.state import ERRORS

T = TypeVar("T")
LABELS = 1024
"""Of all questions of a request."""
Tell: TypeAlias = Callable[[Prompt, Sequence[Media]], None]


decisions = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])


@decisions.post("/decisions")
async def create_decision(served: Served, asker: Asks, body: DecisionsRequest, request: Request) -> dict[str, Any]:
    """As OpenAI's, of texts and pictures."""
    served.check_model(body.model)
    given = body.input if isinstance(body.input, list) else [InputMessage(role="user", content=body.input)]
    said = [(message.role, message.content) for message in given]
    got = await while_there(request, _found(served, body, said, body.asked(), asker.name))
    remark(request.scope, prompt=got.tokens)
    usage = {
        "input_tokens": got.tokens, "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": got.tokens,
    }  # fmt: skip
    return {"model": served.loaded.name, "answers": body.answers(got.answers), "usage": usage}


@decisions.post("/systemone")
async def system_one(served: Served, asker: Asks, body: SystemOneRequest, request: Request) -> dict[str, Any]:
    """As transformers' `/v1/systemone`; pictures stand in the state."""
    served.check_model(body.model)
    questions = read_questions(body.questions)
    message = InputMessage.model_validate({"role": "user", "content": _parts(content(body.state), body.assets)})
    got = await while_there(request, _found(served, body, [("user", message.content)], questions, asker.name))
    remark(request.scope, prompt=got.tokens)
    answers = {one.question.name: answer(one) for one in got.answers}
    usage = {"input_tokens": got.tokens, "output_tokens": 0}
    return {"model": served.loaded.name, "answers": answers, "usage": usage}


async def _found(
    served: ChatService, asked: Looked, said: Sequence[tuple[str, Any]], questions: list[Question], client: str
) -> Decided:
    if (labels := sum(len(question.labels) for question in questions)) > LABELS:
        raise ApiError(413, "too_large", f"questions: expected at most {LABELS} labels in all, got {labels}")
    messages, named = shown(said, asked, served.loaded.sampling, served.limits)
    return await decided(served, messages, named, questions, client)


async def decided(
    served: ChatService, messages: Sequence[dict[str, Any]], named: Sequence[Named], questions: list[Question],
    client: str, tell: Tell = lambda prompt, media: None,
) -> Decided:  # fmt: skip
    """The answers at the end of a client's conversation; `tell` hears, in a thread, the prompt of the first
    question and what was made of the media. Raises `ApiError` and `BadInput`."""
    served.check_media(len(named))
    decider = served.loaded.decider
    async with served.opening.opened(named) as media, served.deciding:
        said, own = read_messages(with_media(messages, media), None, decider.writer.processor.placeholders)
        items: tuple[Media, ...] = own
        ask = decider.about_conversation(Conversation(said, items))

        def decide(wanted: Callable[[], None]) -> Decided:
            tell(ask(words(questions[0])), media)
            return decider.decide(ask, questions, partial(served.loaded.see, client=client), wanted)

        return await _while_wanted(decide)


async def _while_wanted(work: Callable[[Callable[[], None]], T]) -> T:
    """What `work` gives, in a thread. Where this is cancelled, what it was given raises in the thread; until that has
    ended it holds its turn and its pictures."""
    gone = threading.Event()

    def wanted() -> None:
        if gone.is_set():
            raise VlmError("nobody wants it any more")

    working = asyncio.ensure_future(asyncio.to_thread(work, wanted))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        gone.set()
        await asyncio.wait((working,))
        raise


def _parts(state: str, assets: Mapping[str, Asset]) -> str | list[dict[str, Any]]:
    """The state with a picture wherever a placeholder stands. Raises `ApiError` for one that stands nowhere."""
    if not assets:
        return state
    if missing := next((name for name in assets if name not in state), None):
        raise ApiError(422, "invalid", f"assets: expected {missing[:40]!r} somewhere in the state")
    names = sorted(assets, key=len, reverse=True)
    parts: list[dict[str, Any]] = []
    for piece in re.split(f"({'|'.join(map(re.escape, names))})", state):
        if piece in assets:
            parts.append({"type": "input_image", "image_url": f"data:image/png;base64,{assets[piece].data_base64}"})
        elif piece:
            parts.append({"type": "input_text", "text": piece})
    return parts

"""`/caption` and `/vqa`: one picture or clip, by a form or as JSON, and the sentence that `vlm caption` and `vlm ask`
give."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator
from starlette.datastructures import FormData, UploadFile

from vlm.conversation.texts import check_text
from vlm.engine.request import Usage as Used
from vlm.facade import ANSWER_TOKENS, CAPTION_TOKENS
from vlm.heads.writer import caption_prompts
from vlm.media.open import Media
from vlm.models.processor import Processor, Prompt
from vlm.server.chat.asked import Looked
from vlm.server.chat.completion_schemas import Usage
from vlm.server.chat.media import Named, looks
from vlm.server.chat.routes import Asker, Asks, Served
from vlm.server.chat.service import ChatService, Wanted
from vlm.server.chat.telling import reason, seen, usage
from vlm.server.http.errors import ApiError, told
from vlm.server.http.events import while_there
from vlm.server.http.forms import kind_of_body, read_form
from vlm.server.http.schemas import Text
from vlm.server.http.sources import ClipFile
from vlm.server.http.state import ERRORS

plain = APIRouter(responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])


class CaptionRequest(Looked):
    """Exactly one of `image` and `video`: a `data:` URL, a URL, or a path below one of the server's folders."""

    model: str | None = None
    image: str | None = None
    video: str | None = None
    max_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one(self) -> CaptionRequest:
        self.exactly_one(("image", "video"))
        return self


class QuestionRequest(CaptionRequest):
    question: Text


class FormFields(Looked):
    """Of a form, beside its file."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    question: Text | None = None


class CaptionAnswer(BaseModel):
    caption: str
    finish_reason: Literal["stop", "length"]
    model: str
    usage: Usage


class QuestionAnswer(BaseModel):
    answer: str
    finish_reason: Literal["stop", "length"]
    model: str
    usage: Usage


def _body(model: type[BaseModel], fields: Sequence[str]) -> dict[str, Any]:
    """What the document says of a body that the route reads itself."""
    texts = {name: {"type": "string"} for name in fields}
    form = {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}, **texts},
        "required": ["file"],
    }
    json = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    return {"requestBody": {"required": True, "content": {
        "application/json": json, "multipart/form-data": {"schema": form},
    }}}  # fmt: skip


@plain.post("/caption", openapi_extra=_body(CaptionRequest, ["max_tokens"]))
async def caption(served: Served, asker: Asks, request: Request) -> CaptionAnswer:
    """A sentence about a picture or clip."""
    try:
        asked, source = await _read(request, CaptionRequest)
        text, about = await while_there(request, _said(served, asker, asked, source, None, CAPTION_TOKENS))
        return CaptionAnswer(caption=text, **about)
    finally:
        await request.close()  # the form's file


@plain.post("/vqa", openapi_extra=_body(QuestionRequest, ["question", "max_tokens"]))
async def vqa(served: Served, asker: Asks, request: Request) -> QuestionAnswer:
    """The answer to a question about a picture or clip."""
    try:
        asked, source = await _read(request, QuestionRequest)
        check_text(asked.question or "", "question")
        text, about = await while_there(request, _said(served, asker, asked, source, asked.question, ANSWER_TOKENS))
        return QuestionAnswer(answer=text, **about)
    finally:
        await request.close()


async def _read(request: Request, model: type[CaptionRequest]) -> tuple[Any, UploadFile | None]:
    """What was asked, and the file of a form. Raises `ApiError`."""
    kind = kind_of_body(request)
    try:
        if kind == "multipart/form-data":
            return _of_form(await read_form(request, 1, 16), model)
        if kind not in ("application/json", ""):
            raise ApiError(415, "unsupported", "expected multipart/form-data or application/json")
        return await asyncio.to_thread(TypeAdapter(model).validate_json, await request.body()), None
    except ValidationError as error:
        raise ApiError(422, "invalid", told(error.errors(include_input=False, include_url=False))) from None


def _of_form(form: FormData, model: type[CaptionRequest]) -> tuple[FormFields, UploadFile]:
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if len(files) != 1 or not isinstance(form.get("file"), UploadFile):
        raise ApiError(422, "invalid", "expected one file under the name `file`")
    if len(texts) + 1 != len(form.multi_items()):
        raise ApiError(422, "invalid", "expected each field of the form once")
    asked = FormFields.model_validate_strings(texts, strict=False)
    if (asked.question is None) is issubclass(model, QuestionRequest):
        raise ApiError(422, "invalid", "question: expected one of /vqa, and none of /caption")
    return asked, files[0]


async def _said(
    served: ChatService, asker: Asker, asked: Any, file: UploadFile | None, question: str | None, usual: int
) -> tuple[str, dict[str, Any]]:
    """The text, and what is told beside it; without a question it is the instruction of a caption."""
    served.check_model(asked.model)
    look, video = looks(asked, served.loaded.sampling, served.limits), file is None and asked.video is not None
    if file is None:
        named = Named(asked.video if video else asked.image, video, look)
    else:
        source = await served.opening.sources.upload(file)
        video = isinstance(source, ClipFile)
        named = Named(source, None, look)
    for name in () if video else ("fps", "max_frames"):
        if getattr(asked, name) is not None:
            raise ApiError(422, "invalid", f"{name}: expected a clip")

    def read(processor: Processor, media: Sequence[Media]) -> Prompt:
        text = caption_prompts(media)[0] if question is None else question
        return processor.prompt(processor.user_messages(text, media[0]), media)

    answering = await served.answering(
        Wanted(
            [], [named], max_tokens=asked.max_tokens or usual, client=asker.name, noted=asker.noted, read=read,
        ), streams=False
    )  # fmt: skip
    try:
        text, used, finish = "", None, None
        async for piece in answering.pieces():
            assert piece is not None
            text, used, finish = text + piece.text, piece.usage or used, piece.finish or finish
        assert isinstance(used, Used)
        assert finish is not None
        told_of = usage(used, seen(served.loaded.processor, answering.prompt, answering.media))
        return text.strip(), {"finish_reason": reason(finish), "model": served.loaded.name, "usage": told_of}
    finally:
        await answering.close()

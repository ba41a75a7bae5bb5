"""What `/v1/sessions` takes and gives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from vlm.server.chat.asked import Looked
from vlm.server.chat.completion_schemas import ChatMessage


class SessionRequest(Looked):
    """The conversation, as chat completions take it."""

    model: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096, fail_fast=True)]


class SessionName(BaseModel):
    name: str


class SessionAnswer(SessionName):
    """What a session's file says of it; of one that cannot be read `error` says why."""

    bytes: int
    saved: int = Field(description="When it was written, in seconds of Unix time.")
    turns: int | None = Field(None, description="Of the user.")
    media: int | None = Field(None, description="Pictures and clips.")
    tokens: int | None = Field(None, description="Of the conversation, image tokens among them.")
    image_tokens: int | None = None
    read_tokens: int | None = Field(None, description="The first ones, which are not read again once it is restored.")
    error: str | None = None


class SessionsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[SessionAnswer]


class SaidAddress(BaseModel):
    url: str


class SaidPart(BaseModel):
    type: Literal["text", "image_url", "video_url"]
    text: str | None = None
    image_url: SaidAddress | None = Field(
        None, description="A PNG of what was decoded; of pictures beyond what a request may hold what they were called."
    )
    video_url: SaidAddress | None = Field(None, description="What the clip was called; its file is not kept.")


class SaidMessage(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: list[SaidPart]


class SessionConversation(SessionAnswer):
    model: str
    messages: list[SaidMessage] = Field(description="As chat completions take them, but for clips.")

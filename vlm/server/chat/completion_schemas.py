"""What `/v1/chat/completions` takes and gives: OpenAI's form, with what this server says beside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, model_validator

from vlm.server.chat.asked import Asked, Content, NoTools, Schema, Taken, only
from vlm.server.http.schemas import Body

NoNames: TypeAlias = Annotated[Any, only(because="this server's models know no names of speakers")]
NoRefusal: TypeAlias = Annotated[Any, only("", because="a refusal is no part of a conversation here")]
NoAudio: TypeAlias = Annotated[Any, only(because="this server hears and says nothing")]
TextAlone: TypeAlias = Annotated[Any, only(["text"], because="this server writes text alone")]
NoEffort: TypeAlias = Annotated[Any, only("none", because="this server's models do not reason apart from their reply")]
NoVerbosity: TypeAlias = Annotated[Any, only("medium", because="say in words how long a reply shall be")]
NoPrediction: TypeAlias = Annotated[Any, only(because="this server takes no prediction of the reply")]
NoSearch: TypeAlias = Annotated[Any, only(because="this server searches no web")]


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content | None = None
    name: NoNames = None
    refusal: NoRefusal = None
    audio: NoAudio = None
    tool_calls: NoTools = None
    function_call: NoTools = None
    annotations: Taken = None


class NamedSchema(Body):
    name: str
    schema_: Schema = Field({}, alias="schema")
    description: Taken = None
    strict: Taken = Field(None, description="Taken; a reply always keeps to the schema.")


class PlainFormat(Body):
    type: Literal["text", "json_object"]


class SchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Taken = None


class ChatRequest(Asked):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096, fail_fast=True)]
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    functions: NoTools = None
    function_call: NoTools = None
    audio: NoAudio = None
    modalities: TextAlone = None
    reasoning_effort: NoEffort = None
    verbosity: NoVerbosity = None
    prediction: NoPrediction = None
    web_search_options: NoSearch = None

    @model_validator(mode="after")
    def _together(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("expected one of max_tokens and max_completion_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: expected logprobs beside it")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: expected stream beside it")
        asked = self.response_format is not None and self.response_format.type != "text"
        self.one_constraint("response_format" if asked else None)
        return self


class TopLogprob(BaseModel):
    token: str
    bytes: list[int] | None
    logprob: float


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class Said(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int
    message: Said
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]
    stop_reason: Literal["deadline"] | None = Field(None, description="Where the time ended the reply.")


class PromptDetails(BaseModel):
    cached_tokens: int = Field(description="Of the prompt, read before.")
    image_tokens: int


class MediaUsage(BaseModel):
    """A picture or clip as the model saw it."""

    kind: Literal["image", "video"]
    size: tuple[int, int] = Field(description="Width and height.")
    frames: int
    times: list[float] = Field(description="Of a clip's frames, in seconds.")
    image_tokens: int
    notes: list[str] = Field(description="What was left out or changed of what the file holds.")


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    media: list[MediaUsage] = Field(description="In the order of the messages.")


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage

"""What `/v1/responses` takes: OpenAI's form, as far as texts and pictures go; nothing is kept between requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag, model_validator

from vlm.server.chat.asked import Asked, Content, Schema, Stop, Taken, only
from vlm.server.chat.completion_schemas import NoEffort, NoVerbosity, PlainFormat
from vlm.server.http.schemas import Body, Text, either

KEPT = "this server keeps nothing of what was said: send the whole conversation as input"
NotKept: TypeAlias = Annotated[Any, only(because=KEPT)]
NotLater: TypeAlias = Annotated[Any, only(False, because="this server answers at once")]
NoTruncation: TypeAlias = Annotated[Any, only("disabled", because="this server never cuts a conversation")]
NoPrompts: TypeAlias = Annotated[Any, only(because="this server keeps no prompts")]
NoneOther: TypeAlias = Annotated[Any, only(because="this server has nothing of the kind")]
LOGPROBS = "message.output_text.logprobs"


class InputMessage(Body):
    """A message, or an answer's `output` as it came."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: Taken = None
    status: Taken = None
    phase: Taken = None


InputMessages: TypeAlias = Annotated[list[InputMessage], Field(min_length=1, max_length=4096, fail_fast=True)]


class NamedSchemaFormat(Body):
    type: Literal["json_schema"]
    schema_: Schema = Field(alias="schema")
    name: Stop | None = None
    description: Taken = None
    strict: Taken = Field(None, description="Taken; a reply always keeps to the schema.")


class TextConfig(Body):
    format: Annotated[PlainFormat | NamedSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: NoVerbosity = None


class Reasoning(Body):
    effort: NoEffort = None
    summary: NoneOther = None
    generate_summary: NoneOther = None


class ResponseStreamOptions(Body):
    include_obfuscation: Taken = None


class ResponsesRequest(Asked):
    input: Annotated[
        Annotated[Text, Tag("words")] | Annotated[InputMessages, Tag("many")], either(words=str, many=list)
    ]
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: Annotated[list[Literal["message.output_text.logprobs"]], Field(max_length=16)] | None = None
    stream_options: ResponseStreamOptions | None = None
    previous_response_id: NotKept = None
    conversation: NotKept = None
    context_management: NotKept = None
    background: NotLater = None
    truncation: NoTruncation = None
    prompt: NoPrompts = None
    max_tool_calls: Taken = None
    image: NoneOther = None
    access_programs: NoneOther = None
    background_options: NoneOther = None

    @model_validator(mode="after")
    def _together(self) -> ResponsesRequest:
        asked = self.text is not None and self.text.format is not None and self.text.format.type != "text"
        self.one_constraint("text.format" if asked else None)
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"top_logprobs: expected include [{LOGPROBS!r}] beside it")
        return self

    @property
    def logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    @property
    def schema_asked(self) -> dict[str, Any] | None:
        """Of the reply's JSON, where it is to be some."""
        form = None if self.text is None else self.text.format
        if isinstance(form, NamedSchemaFormat):
            return form.schema_
        return {"type": "object"} if form is not None and form.type == "json_object" else None

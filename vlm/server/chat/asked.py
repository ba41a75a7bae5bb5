"""What requests for replies have in common: how tokens are chosen, which texts are allowed, how media are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, Tag, model_validator

from vlm.server.http.schemas import Body, Text, either, plain

Taken: TypeAlias = Annotated[Any, Field(description="Taken; it changes nothing.")]


def only(*allowed: Any, because: str) -> BeforeValidator:
    """Of a field that would change the answer: other values than these, and null, are refused."""

    def check(value: Any) -> Any:
        if value is None or any(type(value) is type(known) and value == known for known in allowed):
            return value
        known = ", ".join(map(repr, allowed))
        raise ValueError(f"expected {known or 'nothing'}: {because}")

    return BeforeValidator(check)


NoTools: TypeAlias = Annotated[Any, only([], because="this server calls no tools")]
ToolChoice: TypeAlias = Annotated[Any, only("none", "auto", because="this server calls no tools")]
NoFiles: TypeAlias = Annotated[Any, only(because="this server keeps no files")]
NoModeration: TypeAlias = Annotated[Any, only(because="this server does not moderate")]


Words: TypeAlias = Annotated[str, Field(min_length=1, max_length=65_536)]
Stop: TypeAlias = Annotated[str, Field(min_length=1, max_length=1024)]
Remark: TypeAlias = Annotated[str, Field(max_length=1024)]
Schema: TypeAlias = Annotated[dict[str, Any], AfterValidator(plain)]
Detail: TypeAlias = Literal["auto", "low", "high", "original"]
LOW_PIXELS = 512 * 512
"""What `"detail": "low"` bounds a picture to, as OpenAI says."""


class Address(Body):
    """Where a picture or clip is: a `data:` URL, an http(s) URL, or a path below one of the server's folders."""

    url: str
    detail: Detail | None = None


Place: TypeAlias = Annotated[Annotated[Address, Tag("one")] | Annotated[str, Tag("words")], either(one=dict, words=str)]
PartType: TypeAlias = Literal[
    "text", "input_text", "output_text", "image_url", "image", "input_image", "video_url", "video", "input_video"
]


class Part(Body):
    """A part of a message: a text, a picture or a clip, as chat completions or responses write them."""

    type: PartType
    text: Text | None = None
    image_url: Place | None = None
    image: Place | None = None
    video_url: Place | None = None
    video: Place | None = None
    detail: Detail | None = None
    file_id: NoFiles = None
    annotations: Taken = None
    logprobs: Taken = None
    prompt_cache_breakpoint: Taken = None

    @property
    def kind(self) -> Literal["text", "image", "video"]:
        return "text" if "text" in self.type else "image" if "image" in self.type else "video"

    @property
    def address(self) -> Address:
        """Of a picture or clip."""
        found = next(one for one in (self.image_url, self.image, self.video_url, self.video) if one is not None)
        address = Address(url=found) if isinstance(found, str) else found
        return address if self.detail is None else address.model_copy(update={"detail": self.detail})

    @model_validator(mode="after")
    def _one(self) -> Part:
        names = {"text": ("text",), "image": ("image_url", "image"), "video": ("video_url", "video")}[self.kind]
        given = [
            name for name in ("text", "image_url", "image", "video_url", "video") if getattr(self, name) is not None
        ]
        if len(given) != 1 or given[0] not in names:
            got = ", ".join(given) or "nothing"
            raise ValueError(f"expected {' or '.join(names)} in a part of type {self.type}, got {got}")
        if self.kind == "text" and self.detail is not None:
            raise ValueError("detail: expected a picture, got a text")
        if self.kind == "video" and self.address.detail not in (None, "auto"):
            raise ValueError("detail: expected a picture, got a clip; max_frames and fps say how clips are looked at")
        return self


Parts: TypeAlias = Annotated[list[Part], Field(max_length=4096, fail_fast=True)]
Content: TypeAlias = Annotated[
    Annotated[Text, Tag("words")] | Annotated[Parts, Tag("many")], either(words=str, many=list)
]
Stops: TypeAlias = Annotated[list[Stop], Field(max_length=16, fail_fast=True)]


class Looked(Body):
    """How pictures and clips are looked at. What a model cannot apply is refused."""

    fps: FiniteFloat | None = Field(None, gt=0, le=1000, description="Frames a second of clips.")
    max_frames: int | None = Field(None, ge=1, description="Of each clip.")
    min_pixels: int | None = Field(None, ge=1, description="A smaller picture is enlarged before the model sees it.")
    max_pixels: int | None = Field(None, ge=1, description="A larger picture is reduced before the model sees it.")

    @model_validator(mode="after")
    def _bounds(self) -> Looked:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels: expected at most max_pixels {self.max_pixels}, got {self.min_pixels}")
        return self


class Asked(Looked):
    """Beside the conversation. Without temperature, `top_p`, `top_k`, `min_p`, `seed` and several choices the likeliest
    token is taken, as everywhere in vlm; with one of them the temperature is 1, as OpenAI's."""

    model: str | None = None
    stream: bool | None = None
    temperature: FiniteFloat | None = Field(None, ge=0, le=2)
    top_p: FiniteFloat | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1_000_000, description="0 and -1 are all.")
    min_p: FiniteFloat | None = Field(None, ge=0, le=1)
    repetition_penalty: FiniteFloat | None = Field(None, gt=0, le=10)
    presence_penalty: FiniteFloat | None = Field(None, ge=-2, le=2)
    frequency_penalty: FiniteFloat | None = Field(None, ge=-2, le=2)
    logit_bias: Annotated[dict[str, FiniteFloat], Field(max_length=1024)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stop: (
        Annotated[Annotated[Stop, Tag("words")] | Annotated[Stops, Tag("many")], either(words=str, many=list)] | None
    ) = None

    guided_choice: Annotated[list[Words], Field(min_length=1, max_length=1024, fail_fast=True)] | None = None
    guided_regex: Words | None = None
    guided_grammar: Words | None = Field(None, description="In Lark's notation.")

    user: Taken = None
    metadata: Annotated[dict[Stop, Remark], Field(max_length=16)] | None = Field(None, description="Taken; not kept.")
    store: Taken = None
    safety_identifier: Taken = None
    service_tier: Taken = None
    parallel_tool_calls: Taken = None
    prompt_cache_key: Taken = None
    prompt_cache_options: Taken = None
    prompt_cache_retention: Taken = None
    tools: NoTools = None
    tool_choice: ToolChoice = None
    moderation: NoModeration = None

    @model_validator(mode="after")
    def _fit(self) -> Asked:
        for token in self.logit_bias or {}:
            if not (token.isascii() and token.isdecimal() and len(token) < 12):
                raise ValueError(f"logit_bias: expected tokens by their numbers, got {token[:20]!r}")
        for bias in (self.logit_bias or {}).values():
            if not -100 <= bias <= 100:
                raise ValueError(f"logit_bias: expected numbers of -100 to 100, got {bias:g}")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def one_constraint(self, *others: str | None) -> None:
        """Raises `ValueError` for more than one."""
        given = [
            name for name in ("guided_choice", "guided_regex", "guided_grammar") if getattr(self, name) is not None
        ]
        if len(given := [*given, *filter(None, others)]) > 1:
            raise ValueError(f"expected one constraint of the reply, got {', '.join(given)}")


def characters(contents: Sequence[Any]) -> int:
    """Of all texts."""
    return sum(
        len(content) if isinstance(content, str) else sum(len(part.text or "") for part in content or ())
        for content in contents
    )

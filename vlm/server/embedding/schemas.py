"""What requests for vectors and their answers look like: OpenAI's, with pictures beside texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from vlm.server.http.schemas import Body, Text


class ImageUrl(Body):
    url: str
    detail: str | None = None


class InputPart(Body):
    """Exactly one of `text`, `image` and `image_url`."""

    type: Literal["text", "image", "image_url", "input_text", "input_image"] | None = None
    text: Text | None = None
    image: str | None = Field(None, description="A picture in base64, or as a data: URL.")
    image_url: ImageUrl | str | None = None

    @model_validator(mode="after")
    def _one(self) -> InputPart:
        self.exactly_one(("text", "image", "image_url"))
        return self


def _sort_of_input(value: Any) -> str | None:
    found: dict[type, str] = {str: "words", dict: "one", list: "many"}
    return "one" if isinstance(value, InputPart) else found.get(type(value))


BY_SORT = Discriminator(
    _sort_of_input, custom_error_type="input", custom_error_message="expected a text or an object with a picture"
)
Input: TypeAlias = Annotated[Annotated[Text, Tag("words")] | Annotated[InputPart, Tag("one")], BY_SORT]
Inputs: TypeAlias = Annotated[list[Input], Field(min_length=1, fail_fast=True)]


class Embeddings(Body):
    """OpenAI's request, whose inputs may be pictures too."""

    model: str | None = None
    input: Annotated[
        Annotated[Text, Tag("words")] | Annotated[InputPart, Tag("one")] | Annotated[Inputs, Tag("many")], BY_SORT
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _no_tokens(cls, given: Any) -> Any:
        """Numbers are of OpenAI's tokenizers, whose words are others than the model's."""
        if isinstance(given, list) and given and isinstance(given[0], int | list):
            raise ValueError("expected texts, got numbers of tokens, which are OpenAI's and not this model's; with "
                             "LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)")  # fmt: skip
        return given


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of the texts that the model read; a picture has none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage

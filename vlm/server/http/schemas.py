"""What bodies of every server have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator

from vlm.errors import MANY, unknown

Text: TypeAlias = Annotated[str, Field(max_length=1_000_000)]


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """Raises `ValueError` for what Python reads as JSON and JSON is not: NaN, half a character, what has no end."""
    size_of(value)
    return value


def size_of(value: dict[str, Any]) -> int:
    """Bytes as JSON. Raises `ValueError`."""
    try:
        return len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        raise ValueError("expected JSON of finite numbers and whole characters") from None


class Body(BaseModel):
    """What somebody sends: numbers are numbers and not texts, and no key is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, body: Any) -> Any:
        """The first unknown key is told, before a million of them are collected."""
        names = [field.alias or name for name, field in cls.model_fields.items()]
        strange = next((key for key in body if key not in names), None) if isinstance(body, dict) else None
        if strange is not None and len(names) > MANY:
            raise ValueError(str(unknown("field", f"{strange:.80}", names)))
        if strange is not None:
            raise ValueError(f"expected {', '.join(names)}; got {strange:.80}")
        return body

    def exactly_one(self, names: Sequence[str]) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(names)}; got {', '.join(given) or 'none'}")


class Failure(BaseModel):
    code: str
    message: str


class Error(BaseModel):
    error: Failure


class Health(BaseModel):
    status: Literal["ok"] = "ok"


def either(**sorts: type) -> Discriminator:
    """Tells what a value is by its type, `words=str` for one, so that an error is about that and not the others. Tags
    that `errors.told` leaves out are `one`, `many` and `words`."""
    names = {kind: tag for tag, kind in sorts.items()}

    def tag(value: Any) -> str | None:
        return next((names[kind] for kind in names if isinstance(value, kind)), None)

    expected = " or ".join(SAID[kind] for kind in names)
    return Discriminator(tag, custom_error_type="sort", custom_error_message=f"expected {expected}")


SAID: dict[type, str] = {str: "a text", dict: "an object", list: "a list"}


class ModelAnswer(BaseModel):
    """OpenAI's."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded here, in seconds of Unix time.")
    owned_by: str = "vlm"
    width: int | None = None
    """Of its vectors, where it gives some."""

"""From a row to an example: which of a data set's keys hold the picture, the question, the answers."""

from __future__ import annotations

import ast
import string
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from vlm.config import Config
from vlm.datasets.readers.media import inside, keep, keep_pixels
from vlm.datasets.readers.rows import Row, as_text, as_texts, pick
from vlm.errors import BadInput

MAX_LITERAL = 20_000


class Fields(Config):
    """Expressions (see `rows.pick`) for the parts of an example."""

    id: str | None = None
    """The data set's own id; by default the row's key, line or number."""
    image: str | tuple[str, ...] | None = None
    """A path, or bytes or pixels in the row; of several, those that are there, in order."""
    video: str | None = None
    captions: str | tuple[str, ...] | None = None
    question: str | None = None
    answers: str | tuple[str, ...] | None = None
    answer_is: Literal["text", "letter", "index", "option", "list"] = "text"
    """`letter` and `index` (from 0) name an option, `option` says it whole; a `list` is one answer in parts: "cup, tea
    pot"."""
    options: str | tuple[str, ...] | None = None
    """One key of a list, or a key each; empty ones at the end are not there."""
    split: str | None = None
    meta: dict[str, str] = Field(default_factory=dict)

    @field_validator("meta", mode="before")
    @classmethod
    def _same_names(cls, meta: Any) -> Any:
        """`[a, b]` is `{a: a, b: b}`."""
        return {key: key for key in meta} if isinstance(meta, list) else meta

    def example(self, row: Row, media: Path, classes: tuple[str, ...]) -> dict[str, Any]:
        """An example's keys and values; relative paths start at `media`. Raises `BadInput` naming the record."""
        found: dict[str, Any] = {"id": row.id if self.id is None else as_text(pick(row, self.id), "id", row)}
        if self.image is not None:
            pictures = _pictures(self.image, row, media)
            found |= {"image": pictures[0]} if len(pictures) == 1 else {"frames": tuple(pictures)}
        if self.video is not None:
            found["video"] = str(_file(pick(row, self.video), row, media))
        if self.captions is not None:
            found["captions"] = tuple(text for text in _texts(self.captions, "captions", row))
        if self.question is not None:
            found["question"] = as_text(pick(row, self.question), "question", row).strip()
        if self.options is not None:
            found["options"] = self._options(row)
        if self.answers is not None:
            found["answers"] = self._answers(row, found.get("options", ()), classes)
        found["meta"] = {key: _json_value(pick(row, expression)) for key, expression in self.meta.items()}
        if row.part:
            found["meta"].setdefault("part", row.part)
        return found

    def _options(self, row: Row) -> tuple[str, ...]:
        assert self.options is not None
        values = pick(row, self.options) if isinstance(self.options, str) else [pick(row, o) for o in self.options]
        if isinstance(values, str) and values.startswith("[") and len(values) <= MAX_LITERAL:
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                values = ast.literal_eval(values)  # a list written as Python writes it (MMMU)
        if not isinstance(values, list):
            raise BadInput(f"{row.where}: options are a {type(values).__name__}; expected a list")
        while values and values[-1] in (None, "", "nan"):
            values = values[:-1]
        options = as_texts(values, "options", row)
        if not 2 <= len(options) <= 26:
            raise BadInput(f"{row.where}: {len(options)} options; expected 2 to 26")
        return options

    def _answers(self, row: Row, options: tuple[str, ...], classes: tuple[str, ...]) -> tuple[str, ...]:
        assert self.answers is not None
        texts = _texts(self.answers, "answers", row)
        if self.answer_is == "list":
            return (", ".join(part.strip() for text in texts for part in text.replace("_", " ").split(",")),)
        if self.answer_is == "option":
            return tuple(_whole(text, options, row) for text in texts)
        if self.answer_is in ("letter", "index"):
            return tuple(_letter(text, self.answer_is, len(options), row) for text in texts)
        return tuple(_class_name(text, classes, row) for text in texts) if classes else texts


def _texts(expression: str | tuple[str, ...], what: str, row: Row) -> tuple[str, ...]:
    if isinstance(expression, str):
        return as_texts(pick(row, expression), what, row)
    return tuple(text for one in expression for text in as_texts(pick(row, one), what, row))


def _letter(answer: str, kind: str, options: int, row: Row) -> str:
    letters = string.ascii_uppercase[:options]
    if kind == "index" and answer.isdecimal() and int(answer) < options:
        return letters[int(answer)]
    if kind == "letter" and len(answer.strip()) == 1 and answer.strip() in letters:
        return answer.strip()
    expected = f"0 to {options - 1}" if kind == "index" else f"one of {letters or 'the options, which are none'}"
    raise BadInput(f"{row.where}: answer {answer[:40]!r}; expected {expected}")


def _whole(answer: str, options: tuple[str, ...], row: Row) -> str:
    """The letter of the option with this text."""
    if answer in options:
        return string.ascii_uppercase[options.index(answer)]
    raise BadInput(f"{row.where}: answer {answer[:40]!r}; expected one of the options, {', '.join(options)[:80]!r}")


def _class_name(answer: str, classes: tuple[str, ...], row: Row) -> str:
    if answer in classes:
        return answer
    if answer.isdecimal() and int(answer) < len(classes):
        return classes[int(answer)]
    raise BadInput(
        f"{row.where}: class {answer[:40]!r}; expected a name or number of the card's {len(classes)} classes"
    )


def _pictures(expression: str | tuple[str, ...], row: Row, media: Path) -> list[Path]:
    values = [pick(row, one) for one in ((expression,) if isinstance(expression, str) else expression)]
    flat = [one for value in values for one in (value if isinstance(value, list) else [value]) if one is not None]
    if not flat:
        raise BadInput(f"{row.where}: no picture; expected one under {expression!r}")
    return [_file(value, row, media) for value in flat]


def _file(value: Any, row: Row, media: Path) -> Path:
    """A path below `media`, or what the row carries as a file of the cache."""
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():  # the hub's image feature
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return keep(value, row.where)
    if isinstance(value, np.ndarray):
        return keep_pixels(value, row.where)
    return inside(media, as_text(value, "the picture's or clip's path", row), row.where)


def _json_value(value: Any) -> Any:
    """What `meta` can hold: JSON's types."""
    if isinstance(value, dict):
        return {str(key): _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)

"""A record of a data set's own files, and how a card's expressions pick values out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar

from vlm.config import Config
from vlm.errors import BadInput


@dataclass(frozen=True)
class Row:
    """One record. `where` (file and line or record) begins every message about it."""

    values: dict[str, Any]
    where: str
    id: str
    """The key, line or number it has in its file."""
    folder: Path
    """Of the file; relative paths start here unless the card says otherwise."""
    part: str = ""
    """What `*` stood for where the card's `annotations` match several files."""
    split: str = ""
    """What the files call the split."""
    problem: str = ""
    """Why there is nothing to read here; `values` may be empty."""
    lost: tuple[str, ...] = ()
    """What could not be read of it."""
    doubts: tuple[str, ...] = ()
    """What may not be as it was meant: bytes that are no text, a second picture where there is one text."""
    notes: tuple[str, ...] = ()
    """What was passed over on the way to it and is not missed: members of an archive that are of other kinds."""


class Format(Config):
    """A kind of file; each has a field `name`, whose value is its name in `READERS`.

    `rows` gives the records of one split, `file_rows` those of a file, which may have a `problem`, have `lost`
    something or be in doubt: a data set is read whole or not at all, a collection without them. `defaults` are the
    fields a card need not state.
    """

    if TYPE_CHECKING:  # a field here would be dumped before those that a kind of file has from elsewhere
        name: str = ""

    defaults: ClassVar[dict[str, Any]] = {}
    lenient: ClassVar[bool] = False
    """Whether a record that cannot be used is left out and told, as in mixtures for training; a benchmark is read whole
    or not at all."""

    def rows(self, home: Path, annotations: str, split: str) -> Iterator[Row]:
        """The records of the files that `annotations` names below `home`, `{split}` filled in. Raises `BadInput`."""
        for path, part in matches(home, annotations, split):
            for row in self.file_rows(path, split) if self.lenient else self.whole_rows(path, split):
                # Record 7 of two files is two records.
                yield replace(row, id=f"{part}/{row.id}" if part else row.id, part=part, split=split)

    def whole_rows(self, path: Path, split: str = "") -> Iterator[Row]:
        """The records of a file, none of which may be unfit. Raises `BadInput`."""
        for row in self.file_rows(path, split):
            if wrong := [line for line in (row.problem, *row.lost, *row.doubts) if line]:
                raise BadInput(f"{row.where}: {wrong[0]}")
            yield row

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        raise NotImplementedError


def matches(home: Path, annotations: str, split: str) -> list[tuple[Path, str]]:
    """The files (or folders) of a pattern in sorted order, each with what `*` stood for; at least one."""
    pattern = annotations.replace("{split}", split)
    if "*" not in pattern:
        if not (home / pattern).exists():
            raise BadInput(f"{home / pattern}: no such annotation file (is the data folder right?)")
        return [(home / pattern, "")]
    stars = re.compile(re.escape(pattern).replace(r"\*", "([^/]*)"))
    found = []
    for path in sorted(home.glob(pattern)):
        if match := stars.fullmatch(path.relative_to(home).as_posix()):
            found.append((path, "-".join(match.groups())))
    if not found:
        raise BadInput(f"{home / pattern}: no file matches (is the data folder right?)")
    return found


def pick(row: Row, expression: str) -> Any:
    """The value of an expression: a key, a path or a template.

    `query` is a key; `answers.answer` goes inwards, through every element of a list; `{split}/{id:012d}.jpg` is a text
    with values in it; `@id`, `@part` and `@split` are the row's own. A `?` at the end makes a missing key None.
    Raises `BadInput` naming the record and the keys it has.
    """
    if "{" in expression:
        return _fill(row, expression)
    optional = expression.endswith("?")
    key = expression.removesuffix("?")
    try:
        if key.startswith("@"):
            return {"@id": row.id, "@part": row.part, "@split": row.split}[key]
        return row.values[key] if key in row.values else _walk(row.values, key.split("."))
    except KeyError:
        if optional:
            return None
        known = ", ".join(list(row.values)[:8])
        raise BadInput(f"{row.where}: no key {key!r}; it has {known or 'none'}") from None


def _walk(value: Any, keys: list[str]) -> Any:
    if not keys:
        return value
    if isinstance(value, list):
        found: list[Any] = []
        for element in value:
            inner = _walk(element, keys)
            found += inner if isinstance(inner, list) else [inner]
        return found
    if not isinstance(value, dict):
        raise KeyError(keys[0])
    return _walk(value[keys[0]], keys[1:])


def _fill(row: Row, template: str) -> str:
    text = ""
    for literal, key, spec, _ in Formatter().parse(template):
        text += literal
        if key is not None:
            value = pick(row, key)
            try:
                text += format("" if value is None else value, spec or "")
            except (ValueError, TypeError):
                raise BadInput(f"{row.where}: key {key!r}: {value!r} does not fit {template!r}") from None
    return text.strip()


def as_text(value: Any, what: str, row: Row) -> str:
    """A string, or a number as one. Raises `BadInput` for anything else, and for an empty string."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"{row.where}: {what} is {_short(value)}; expected a text")
    if not str(value).strip():
        raise BadInput(f"{row.where}: {what} is empty; expected a text")
    return str(value)


def as_texts(value: Any, what: str, row: Row) -> tuple[str, ...]:
    """One text or a list of them, at least one."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise BadInput(f"{row.where}: {what} is an empty list; expected at least one text")
    return tuple(as_text(element, what, row) for element in values)


def _short(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"

"""Items of a table: the column that has the pictures, and the others as metadata.

A table is gone through before its rows are used: a CSV's columns get the types that all of their values have, and the
rows that name one picture (a row a caption, as Flickr8k is published) become one item with all their values.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm.datasets.readers.jsonfiles import Jsonl
from vlm.datasets.readers.lazy_media import LazyMedia
from vlm.datasets.readers.rows import Format, Row
from vlm.datasets.readers.tables import Table
from vlm.errors import BadInput
from vlm.files import name_text
from vlm.ingest.item import Item
from vlm.ingest.names import place_of
from vlm.ingest.values import plain
from vlm.notes import Notes

COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image", "image_path", "video", "url", "image_url")
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_FLOAT = re.compile(r"(?=.*[.eE])-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_TRUTH = {"true": True, "false": False}
Reading = Callable[[str], Any]
"""A cell of a CSV as a value."""


def table_items(
    path: Path, format: Format, light: Format, column: str | None, home: Path, notes: Notes
) -> Iterator[Item]:
    """The items of a table, in the order their pictures are first named; what cannot be used has a problem.

    `light` reads the same rows without pictures' bytes. Raises `BadInput` where the column is missing, and for a file
    that is no such table.
    """
    readings, again = _first_look(path, light, column, home, notes)
    merged = _merged(path, format, column, home, again, readings) if again else {}
    for row, wanted in _rows(path, format, column):
        if wanted is None:
            yield Item(f"{name_text(path)}#{row.id}", "", problem=f"{row.where}: {row.problem}")
            continue
        value, rest = _picture(row.values[wanted]), _others(row, wanted, readings)
        where = name_text(row.where)

        def tell(what: str, where: str = where) -> None:
            notes.add(where, what)

        if isinstance(value, bytes | LazyMedia):
            yield Item(f"{name_text(path)}#{row.id}", value, plain(rest, tell))
        elif isinstance(value, str) and value.strip():
            place = place_of(value, home)
            key = _key(place)
            if key not in again:
                yield Item(name_text(place), place, plain(rest, tell))
            elif key in merged:
                yield Item(name_text(place), place, plain(merged.pop(key), tell))
        else:
            got = f"column {wanted}: expected a path, a URL or bytes, got {value!r:.40}"
            yield Item(f"{name_text(path)}#{row.id}", "", problem=f"{where}: {got}")


def joined(values: list[dict[str, Any]]) -> dict[str, Any]:
    """The values that several records have of one picture: one where they agree, a list where they differ; of `text`,
    which is searched by its words, lines."""
    found: dict[str, list[Any]] = {}
    for record in values:
        for key, value in record.items():
            own = found.setdefault(key, [])
            if value is not None and value not in own:
                own.append(value)
    lines = {"text"} if all(isinstance(one, str) for one in found.get("text", ())) else set()
    return {
        key: "\n".join(own) if key in lines else own[0] if len(own) == 1 else own for key, own in found.items() if own
    }


def _rows(path: Path, format: Format, column: str | None) -> Iterator[tuple[Row, str | None]]:
    """Each row with its column of pictures; none where the row cannot be used."""
    for row in format.file_rows(path, ""):
        if row.problem:
            yield row, None
            continue
        wanted = column or next((name for name in COLUMNS if name in row.values), None)
        if wanted is None or wanted not in row.values:
            expected = f"column {column!r}" if column else f"one of the columns {', '.join(COLUMNS)}"
            problem = f"expected {expected}, got {', '.join(list(row.values)[:8])}"
            if not isinstance(format, Jsonl):  # all rows have the same columns
                raise BadInput(f"{row.where}: {problem}")
            yield replace(row, problem=problem), None
            continue
        yield row, wanted


def _first_look(
    path: Path, format: Format, column: str | None, home: Path, notes: Notes
) -> tuple[dict[str, Reading], set[int]]:
    """How each column of a CSV is read, and the places that several rows name."""
    readings: dict[str, Reading] = {}
    seen, again, rows = set[int](), set[int](), 0
    try:
        for row, wanted in _rows(path, format, column):
            if wanted is None:
                continue
            if isinstance(format, Table):
                for name, cell in row.values.items():
                    if name != wanted and isinstance(cell, str) and cell:
                        readings[name] = _narrowest(cell, readings.get(name))
            value = _picture(row.values[wanted])
            if isinstance(value, LazyMedia) and not isinstance(format, Table):
                break  # a column of pictures: no row names another's
            if isinstance(value, str) and value.strip():
                key = _key(place_of(value, home))
                rows += key in seen
                (again if key in seen else seen).add(key)
    except BadInput:
        pass  # what comes before the damage is used; the second look says what it is
    if rows:
        notes.add(name_text(path), "rows that name a picture again, whose values were added to its own", rows)
    return readings, again


def _merged(
    path: Path, format: Format, column: str | None, home: Path, again: set[int], readings: dict[str, Reading]
) -> dict[int, dict[str, Any]]:
    found: dict[int, list[dict[str, Any]]] = {}
    try:
        for row, wanted in _rows(path, format, column):
            value = None if wanted is None else _picture(row.values[wanted])
            if wanted is not None and isinstance(value, str) and (key := _key(place_of(value, home))) in again:
                found.setdefault(key, []).append(_others(row, wanted, readings))
    except BadInput:
        pass
    return {key: joined(records) for key, records in found.items()}


def _others(row: Row, wanted: str, readings: dict[str, Reading]) -> dict[str, Any]:
    """The other columns; an empty cell of a CSV is no value."""
    rest = {key: value for key, value in row.values.items() if key != wanted}
    if not readings:
        return rest
    return {k: readings[k](v) if isinstance(v, str) and k in readings else v for k, v in rest.items() if v != ""}


def _narrowest(cell: str, so_far: Reading | None) -> Reading:
    """The type that this cell and those before it have."""
    if _INTEGER.fullmatch(cell):
        own: Reading = int
    elif _FLOAT.fullmatch(cell):
        own = float
    else:
        own = _truth if cell.lower() in _TRUTH else str
    if so_far is None or so_far is own:
        return own
    return float if {so_far, own} == {int, float} else str


def _truth(cell: str) -> bool:
    return _TRUTH[cell.lower()]


def _picture(value: Any) -> Any:
    """A picture as the hub's data sets have it is a struct."""
    return value.get("bytes") or value.get("path") if isinstance(value, dict) else value


def _key(place: str) -> int:
    """Eight bytes of a hash stand for a place: all of a table's are in memory."""
    return int.from_bytes(hashlib.blake2b(place.encode(errors="surrogatepass"), digest_size=8).digest(), "big")

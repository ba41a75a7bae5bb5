"""The one table behind a LanceDB index: its columns, where it lies, and filters in its SQL.

    id: string | vector: float32 [D] | metadata: JSON | text: metadata["text"] or ["_text"], for full text search

The model is named in the schema's metadata, which is written with the table and never apart from it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from vlm.errors import BadInput, VlmError
from vlm.index import checks
from vlm.index.base import Metadata, Vectors, Where

TABLE = "entries"
VERSION = b"1"
METADATA_CACHE = 2**26
"""Bytes. By default LanceDB keeps a gigabyte of what it has read of old versions, and each write makes one."""
INDEX_SHARE = 0.25
"""Of the machine's memory, for partitions that were read. One that is not kept is read again by each search."""


def schema(width: int, model: str) -> pa.Schema:
    vector = pa.list_(pa.float32(), width)
    fields = [("id", pa.string()), ("vector", vector), ("metadata", pa.json_()), ("text", pa.string())]
    said = {"vlm.version": VERSION.decode(), "vlm.model": model}
    return pa.schema([pa.field(name, kind) for name, kind in fields], metadata=said)


def rows(ids: Sequence[str], vectors: Vectors, texts: Sequence[str], model: str) -> pa.Table:
    """Entries as the table's rows, the last of an id that is there twice. `texts` are the metadata's JSON."""
    last = list({id: row for row, id in enumerate(ids)}.values())
    flat = np.ascontiguousarray(vectors[last]).ravel()
    said = [json.loads(texts[row]) for row in last]
    words = [row.get("text") or row.get("_text") for row in said]  # `_text` is what the retrieval service calls it
    columns = {
        "id": pa.array([ids[row] for row in last], pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.shape[1]),
        "metadata": pa.array([texts[row] for row in last], pa.json_()),
        "text": pa.array([word if isinstance(word, str) else None for word in words], pa.string()),
    }
    # The schema that the table gives back calls JSON bytes, and takes text for its binary form.
    return pa.table(columns, schema=schema(vectors.shape[1], model))


def create(place: str, width: int, model: str, options: Mapping[str, str] | None) -> Any:
    """An empty table. Raises `BadInput` where something is there already."""
    if not remote(place):
        checks.new_folder(Path(place), f"{TABLE}.lance")
    elif there(place, options):
        raise BadInput(f"{place}: expected a new place for an index, got one with an index")
    with told(place):
        return _connect(place, options).create_table(TABLE, schema=schema(width, model))


def there(place: str, options: Mapping[str, str] | None) -> bool:
    """Whether object storage has the table."""
    with told(place):
        return TABLE in _connect(place, options).list_tables().tables


def drop(place: str, options: Mapping[str, str] | None) -> None:
    with told(place):
        _connect(place, options).drop_table(TABLE)


def open_table(place: str, options: Mapping[str, str] | None, snapshot: str | None) -> tuple[Any, int, str]:
    """The table, its width and its model. Raises `BadInput` where there is none or it is damaged."""
    if not remote(place):
        checks.folder_with(Path(place), f"{TABLE}.lance")
    try:
        table = _connect(place, options).open_table(TABLE)
        shape = table.schema
        said = shape.metadata or {}
        if said.get(b"vlm.version") != VERSION:
            raise BadInput(f"{place}: expected an index of version 1, got another table of LanceDB")
        width, model = shape.field("vector").type.list_size, said[b"vlm.model"].decode()
        if snapshot is not None:
            if snapshot not in table.tags.list():
                raise BadInput(f"{place}: expected the name of a snapshot, got {snapshot!r:.80}")
            table.checkout(snapshot)
        table.count_rows()
    except VlmError:
        raise
    except Exception as error:
        raise BadInput(f"{place}: cannot be opened as an index, missing or damaged: {_first_line(error)}") from None
    return table, width, model


def _connect(place: str, options: Mapping[str, str] | None) -> Any:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**32
    session = lancedb.Session(
        index_cache_size_bytes=int(INDEX_SHARE * memory), metadata_cache_size_bytes=METADATA_CACHE
    )
    return lancedb.connect(place, storage_options=dict(options or {}), session=session)


def indexed(table: Any, column: str) -> bool:
    return any(index.columns == [column] for index in table.list_indices())


def remote(place: str) -> bool:
    return "://" in place


@contextmanager
def told(place: str) -> Iterator[None]:
    """What the engine raises, which is of many classes, as one line."""
    try:
        yield
    except VlmError:
        raise
    except Exception as error:
        raise VlmError(f"{place}: the index's engine failed: {_first_line(error)}") from error


def content(table: pa.Table) -> tuple[list[str], Vectors, list[Metadata]]:
    """Ids, float32 `[N, D]` and metadata of rows that were read."""
    return table["id"].to_pylist(), vectors(table), [json.loads(text) for text in table["metadata"].to_pylist()]


def vectors(table: pa.Table | pa.RecordBatch) -> Vectors:
    """float32 `[N, D]` of rows that were read."""
    column = table["vector"]
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    # A batch that was read may be a part of a larger one; flatten minds where it begins.
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, column.type.list_size).astype(np.float32, copy=False)


def any_of(ids: Sequence[str]) -> str:
    """SQL for these ids."""
    return f"id IN ({', '.join(_quoted(id) for id in ids)})"


def at_least(where: Where | None) -> str | None:
    """SQL that holds for every entry that a filter fits, and for some more; `None` where it would hold for all.

    Only what JSON's text decides without doubt is said in SQL; who reads the rows asks `filters.matches` as well.
    """
    terms = [] if where is None else [_term(key, value) for key, value in where.items()]
    said = [term for term in terms if term is not None]
    return " AND ".join(f"({term})" for term in said) or None


def _term(key: str, value: Any) -> str | None:
    if key == "or":
        choices = [at_least(choice) for choice in value]
        return None if None in choices else " OR ".join(f"({choice})" for choice in choices)
    if key == "not" or not re.fullmatch(r"\w+(\.\w+)*", key, re.ASCII):
        return None
    parts = key.split(".")
    if len(parts) > 2:
        return None
    found = f"json_extract(metadata, '$.{key}')"
    if isinstance(value, Mapping):
        terms = [term for name, given in value.items() if (term := _operator(found, name, given)) is not None]
        said = " AND ".join(f"({term})" for term in terms) or None
    else:
        said = _equals(found, value)
    if said is None:
        return None
    # A list has what one of its members has, and a key may have the dot itself: rows for `filters.matches` to look at.
    lists = [f"starts_with(json_extract(metadata, '$.{'.'.join(parts[:n])}'), '[')" for n in range(1, len(parts) + 1)]
    dotted = [f"json_extract(metadata, '$.\"{key}\"') IS NOT NULL"] if len(parts) > 1 else []
    return " OR ".join([f"({said})", *lists, *dotted])


def _operator(found: str, name: str, given: Any) -> str | None:
    if name == "in":
        terms = [_equals(found, value) for value in given]
        return None if None in terms else " OR ".join(f"({term})" for term in terms) or "false"
    if name in ("gt", "gte", "lt", "lte") and _is_number(given):
        # Doubles: not equal here may be equal there, so the ends are kept in.
        return f"{_number(found)} {'>=' if name[0] == 'g' else '<='} {float(given)!r}"
    return None


def _equals(found: str, value: Any) -> str | None:
    if _is_number(value):
        return f"{_number(found)} = {float(value)!r}"
    if isinstance(value, bool):
        return f"{found} = '{json.dumps(value)}'"
    if isinstance(value, str) and re.fullmatch(r"[\w ,.:;@#+/()-]*", value, re.ASCII):
        return f"{found} = '\"{value}\"'"
    return None


def _number(found: str) -> str:
    return f"TRY_CAST({found} AS DOUBLE)"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: BaseException) -> str:
    return f"{(str(error).splitlines() or [type(error).__name__])[0]:.200}"

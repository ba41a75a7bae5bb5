"""Tables: CSV and TSV, and parquet as the hub's data sets have it."""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlm.datasets.readers.lazy_media import LazyMedia
from vlm.datasets.readers.media import MAX_MEDIA_BYTES
from vlm.datasets.readers.rows import Format, Row
from vlm.errors import BadInput, VlmError

MAX_GROUP_BYTES = 16 * 2**30
BATCH = 32
SHORT = 64


class Table(Format):
    """Lines of values; UTF-8."""

    delimiter: ClassVar[str]

    columns: tuple[str, ...] = ()
    """The keys where the first line is not a heading."""
    quotes: bool = True
    """Whether `"` encloses values; else it is a character like any other."""
    base64: tuple[str, ...] = ()
    """Columns of pictures' bytes. A cell too short for one names another row, and stays a text (MMBench)."""

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        csv.field_size_limit(MAX_MEDIA_BYTES * 4 // 3)
        try:
            with path.open(encoding=_encoding(path), errors="surrogateescape", newline="") as lines:
                table = csv.reader(
                    lines,
                    delimiter=self.delimiter,
                    quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
                    strict=self.quotes,
                )
                columns = self.columns or _told_apart(next(table, []))
                for number, values in enumerate(table, 1):
                    where = f"{path}: record {number}"
                    if not values:
                        continue
                    if len(values) != len(columns):
                        problem = f"{len(values)} values; expected {len(columns)} ({', '.join(columns)})"
                        yield Row({}, where, str(number), path.parent, problem=problem)
                        continue
                    record: dict[str, str | bytes] = dict(zip(columns, values, strict=True))
                    for key in self.base64:
                        if len(cell := str(record.get(key, ""))) > SHORT:
                            record[key] = _decoded(cell, f"{where}: column {key}")
                    doubts = tuple(f"column {key}: not UTF-8" for key, cell in record.items() if not _is_text(cell))
                    yield Row(dict(record), where, str(number), path.parent, doubts=doubts)
        except (OSError, UnicodeError, csv.Error) as error:
            raise BadInput(f"{path}: not a table in UTF-8: {error}") from None


class Csv(Table):
    """Between commas."""

    delimiter: ClassVar[str] = ","

    name: Literal["csv"] = "csv"


class Tsv(Table):
    """Between tabs."""

    delimiter: ClassVar[str] = "\t"

    name: Literal["tsv"] = "tsv"


class Parquet(Format):
    """Rows of parquet files; a picture is bytes, or a struct of `bytes` and `path`."""

    name: Literal["parquet"] = "parquet"

    in_place: ClassVar[bool] = False
    """Whether pictures are `LazyMedia`, not bytes."""

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise VlmError(f"{path}: reading parquet needs pyarrow: pip install 'vlm[eval]'") from None
        number = 0
        try:
            with parquet.ParquetFile(path) as table:
                heavy = [field.name for field in table.schema_arrow if self.in_place and _holds_bytes(field.type)]
                heavy = [name for name in heavy if not _is_null(table.metadata, f"{name}.bytes")]
                light = [name for name in table.schema_arrow.names if name not in heavy] if heavy else None
                for group in range(table.metadata.num_row_groups):
                    size = table.metadata.row_group(group).total_byte_size
                    if size > MAX_GROUP_BYTES:
                        raise BadInput(f"{path}: row group of {size} bytes; expected at most {MAX_GROUP_BYTES}")
                    for batch in table.iter_batches(batch_size=BATCH, row_groups=[group], columns=light):
                        for record in batch.to_pylist() if batch.num_columns else [{} for _ in range(batch.num_rows)]:
                            record |= {name: LazyMedia(str(path), number, column=name) for name in heavy}
                            number += 1
                            yield Row(record, f"{path}: record {number}", str(number), path.parent)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: not a parquet file: {' '.join(str(error).split())[:200]}") from None


class ParquetInPlace(Parquet):
    """Columns of bytes are not read."""

    in_place: ClassVar[bool] = True


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_null(metadata: Any, leaf: str) -> bool:
    """Whether a file's own figures say that there is nothing in it: of pictures it has the paths alone."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    figures = [(chunk.statistics, chunk.num_values) for chunk in chunks if chunk.path_in_schema == leaf]
    return bool(figures) and all(s is not None and s.has_null_count and s.null_count == n for s, n in figures)


def _told_apart(names: list[str]) -> tuple[str, ...]:
    """A heading's names; one that is there already gets a number, and one that is empty its place."""
    found: list[str] = []
    for place, name in enumerate(names, 1):
        name = name or f"column {place}"
        found.append(
            name if name not in found else next(n for i in count(2) if (n := f"{name}_{i}") not in [*names, *found])
        )
    return tuple(found)


def _encoding(path: Path) -> str:
    """UTF-8, or UTF-16 where the file begins with its mark, as spreadsheets write it."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _is_text(value: str | bytes) -> bool:
    """Whether it has no bytes in it that are no UTF-8."""
    return isinstance(value, bytes) or value.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in value)


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"{where}: not base64: {error}") from None

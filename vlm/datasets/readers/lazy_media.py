"""A picture or clip that stays where it is, inside an archive or a table, until it is read."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

from vlm.datasets.readers.media import MAX_MEDIA_BYTES
from vlm.errors import BadInput


@dataclass(frozen=True)
class LazyMedia:
    """`size` bytes from byte `at` on of an archive; of a parquet file the value in row `at` (from 0) of a `column`."""

    file: str
    at: int
    size: int = 0
    column: str = ""

    def read(self) -> bytes:
        """Raises `BadInput` where the file is not what it was."""
        try:
            content = _cell(self.file, self.column, self.at) if self.column else self._span()
        except (OSError, IndexError, ValueError) as error:  # pyarrow's errors are ValueErrors or OSErrors
            reason = " ".join(str(error).split())[:120]
            raise BadInput(f"{self.file}: expected a picture or clip at {self.at}, got: {reason}") from None
        if len(content) > MAX_MEDIA_BYTES:
            raise BadInput(f"{self.file}: {len(content)} bytes at {self.at}; expected at most {MAX_MEDIA_BYTES}")
        return content

    def _span(self) -> bytes:
        with open(self.file, "rb") as archive:
            archive.seek(self.at)
            content = archive.read(self.size)
        if len(content) != self.size:
            raise ValueError(f"{len(content)} of {self.size} bytes")
        return content


def _cell(file: str, column: str, row: int) -> bytes:
    starts = _starts(file)
    group = bisect_right(starts, row) - 1
    value = _group(file, column, group)[row - starts[group]].as_py()
    if isinstance(value, dict):  # a picture as the hub's data sets have it
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise ValueError(f"no bytes in column {column}")
    return value


@lru_cache(maxsize=16)
def _starts(file: str) -> list[int]:
    """The first row of each group of rows."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(file)
    return [0, *accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups - 1))]


@lru_cache(maxsize=1)  # neighbours are read one after another
def _group(file: str, column: str, group: int) -> Any:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as table:
        return table.read_row_group(group, columns=[column]).column(0)

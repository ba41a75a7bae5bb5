"""Pictures and tables as data sets publish them, small."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

COLORS = ((220, 30, 30), (30, 30, 220), (30, 200, 30), (10, 10, 10))


def picture(number: int, form: str = "PNG") -> bytes:
    """A plain picture; another number is another picture."""
    encoded = io.BytesIO()
    Image.new("RGB", (8 + number, 8), COLORS[number % 4]).save(encoded, form)
    return encoded.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        put(folder / name, picture(number, "PNG" if name.endswith("png") else "JPEG"))


def clips(folder: Path, *names: str) -> None:
    for name in names:
        put(folder / name, b"a reader of cards opens no clip")


def put_json(path: Path, content: Any) -> None:
    put(path, json.dumps(content))


def put_lines(path: Path, *rows: dict[str, Any]) -> None:
    put(path, "".join(json.dumps(row) + "\n" for row in rows))


def put_csv(path: Path, columns: str, *rows: tuple[object, ...], delimiter: str = ",") -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([columns.split(), *rows])
    put(path, text.getvalue())


def put_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)

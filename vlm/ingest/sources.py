"""Where a collection's pictures and clips are: a folder, a list, a table, COCO's JSON, or shards of a tar archive.

A list has a path or URL a line; a table (CSV, TSV, parquet) has a column of them, or of the pictures' bytes, and its
other columns become metadata; COCO's captions become the metadata `text`, and so do a shard's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any

from vlm.datasets.readers.jsonfiles import read_json
from vlm.datasets.readers.lazy_media import LazyMedia
from vlm.datasets.readers.rows import Format, Row
from vlm.datasets.readers.shards import WebDataset, WebDatasetInPlace
from vlm.datasets.readers.tables import Csv, Parquet, ParquetInPlace, Tsv
from vlm.errors import BadInput
from vlm.media.images import list_media
from vlm.media.urls import is_url

COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image", "image_path", "video", "url", "image_url")
TABLES: dict[str, type[Format]] = {".csv": Csv, ".tsv": Tsv, ".parquet": Parquet}
LISTS = {".txt", ".lst"}
MAX_TEXT = 10_000
"""Characters of one text of the metadata; longer ones are cut."""


@dataclass(frozen=True)
class Item:
    """A picture or clip: the path, the URL or the bytes it is read from, or where those lie inside a file."""

    id: str
    place: str | bytes | LazyMedia
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the source says of it, JSON."""
    suffix: str = ""
    """Of bytes: `.mp4` of a clip, nothing of a picture."""


@dataclass(frozen=True)
class Source:
    name: str
    """An absolute path, or a pattern of such."""
    items: Iterable[Item]
    total: int | None = None
    folder: bool = False
    """Whether everything below the path of this name is the source's."""

    def owns(self, id: str, origin: str) -> bool:
        """Whether an entry that came from the source called `origin` is one of this source's."""
        return origin == self.name or (self.folder and Path(id).is_relative_to(self.name))


def open_source(place: str, column: str | None = None, below: Path | None = None, *, in_place: bool = False) -> Source:
    """The collection at `place`.

    `column` is the table's column to read, found by its name otherwise; relative paths start `below`, which is the
    file's own folder by default. With `in_place` bytes inside a file stay there until somebody reads them. Raises
    `BadInput` for what is no collection; a bad row raises when it is come to.
    """
    path = Path(place).expanduser().absolute()
    suffix = path.suffix.lower()
    if path.is_dir():
        files = [str(file) for file in list_media(path.resolve())]
        return Source(str(path.resolve()), [Item(file, file) for file in files], len(files), folder=True)
    if suffix == ".tar" or path.name.endswith(".tar.gz"):
        if in_place and suffix != ".tar":
            raise BadInput(f"{place}: expected a .tar that is not compressed, whose samples are read where they lie")
        return Source(str(path), _shards(path, WebDatasetInPlace() if in_place else WebDataset()))
    if not path.is_file():
        got = "something else" if path.exists() else "nothing there"
        raise BadInput(f"{place}: expected a folder, list, table, COCO JSON or tar of pictures and clips, got {got}")
    home = below.absolute() if below is not None else path.parent
    if suffix in TABLES:
        format = ParquetInPlace() if in_place and suffix == ".parquet" else TABLES[suffix]()
        return Source(str(path), _table(path, format, column, home))
    if suffix in LISTS:
        lines = [line.strip() for line in _text(path).splitlines()]
        items = [_named(line, home, {}) for line in lines if line and not line.startswith("#")]
        return Source(str(path), items, len(items))
    if suffix == ".json":
        items = list(_coco(path, home))
        return Source(str(path), items, len(items))
    known = ", ".join(sorted([*TABLES, *LISTS, ".json", ".tar"]))
    raise BadInput(f"{place}: expected a folder or a file of {known}, got one of {suffix or 'no suffix'}")


def _named(name: str, home: Path, metadata: dict[str, Any]) -> Item:
    id = name if is_url(name) else str(home / Path(name).expanduser())
    return Item(id, id, metadata)


def _table(path: Path, format: Format, column: str | None, home: Path) -> Iterator[Item]:
    for row in format.file_rows(path, ""):
        wanted = column or next((name for name in COLUMNS if name in row.values), None)
        if wanted is None or wanted not in row.values:
            expected = f"column {column!r}" if column else f"one of the columns {', '.join(COLUMNS)}"
            raise BadInput(f"{row.where}: expected {expected}, got {', '.join(list(row.values)[:8])}")
        value, rest = row.values[wanted], {key: v for key, v in row.values.items() if key != wanted}
        if isinstance(value, dict):  # a picture as the hub's data sets have it
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | LazyMedia):
            yield Item(f"{path}#{row.id}", value, _plain(rest))
        elif isinstance(value, str) and value.strip():
            yield _named(value.strip(), home, _plain(rest))
        else:
            raise BadInput(f"{row.where}: column {wanted}: expected a path, a URL or bytes, got {value!r:.40}")


def _shards(path: Path, format: WebDataset) -> Iterator[Item]:
    """`*` in the name stands for anything: `shard-*.tar`."""
    for row in format.rows(path.parent, path.name, ""):
        shard = _shard(row, path)
        kind = next((kind for kind in ("image", "video") if kind in row.values), None)
        if kind is None:
            raise BadInput(f"{row.where}: expected a picture or a clip, got {', '.join(row.values)}")
        metadata = dict(row.values.get("json") or {}) if isinstance(row.values.get("json"), dict) else {}
        texts = [str(row.values[key]) for key in ("txt", "caption") if key in row.values]
        metadata |= {"text": texts[0]} if texts else {}
        yield Item(f"{shard}#{row.id}", row.values[kind], _plain(metadata), ".mp4" if kind == "video" else "")


def _shard(row: Row, path: Path) -> str:
    return row.where.partition(": sample ")[0] or str(path)


def _coco(path: Path, home: Path) -> Iterator[Item]:
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise BadInput(f"{path}: expected COCO's JSON, an object with a list `images`")
    notes = content.get("annotations")
    captions = [note for note in notes if isinstance(note, dict) and "caption" in note] if notes else []
    captions.sort(key=lambda note: str(note.get("image_id")))
    texts = {id: [str(note["caption"]) for note in own] for id, own in groupby(captions, _image_id)}
    for number, image in enumerate(images, 1):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            raise BadInput(f"{path}: image {number}: expected an object with a file_name, got {image!r:.60}")
        metadata = _plain({key: value for key, value in image.items() if key != "file_name"})
        text = "\n".join(texts.get(str(image.get("id")), ()))
        yield _named(name, home, {**metadata, **({"text": text} if text else {})})


def _image_id(note: dict[str, Any]) -> str:
    return str(note.get("image_id"))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Texts, numbers and lists of them; what is empty, bytes or deeper is left out."""
    return {key: _short(value) for key, value in values.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(element, str | bool | int | float) and _is_plain(element) for element in value)
    return isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value))


def _short(value: Any) -> Any:
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: expected a list of paths in UTF-8, got: {' '.join(str(error).split())[:80]}") from None

"""Where a collection's pictures and clips are: a folder, a list, a table, JSON, or shards of a tar archive.

A list has a path or URL a line; a table (CSV, TSV, parquet, JSON lines) has a column of them, or of the pictures'
bytes, and its other columns become metadata; the captions of COCO's and LLaVA's JSON become the metadata `text`, and so
do a shard's. What of it cannot be used is an item with a problem; what is left out or changed is a note.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vlm.datasets.readers.jsonfiles import Jsonl
from vlm.datasets.readers.rows import Format, Row, matches
from vlm.datasets.readers.shards import WebDataset, WebDatasetInPlace
from vlm.datasets.readers.tables import Csv, Parquet, ParquetInPlace, Tsv
from vlm.errors import BadInput
from vlm.files import name_text
from vlm.ingest.annotations import json_items
from vlm.ingest.item import Item
from vlm.ingest.names import lines_of, place_of
from vlm.ingest.tables import joined, table_items
from vlm.ingest.values import plain
from vlm.media.folders import some_media
from vlm.media.urls import is_url
from vlm.notes import Notes

__all__ = ["Item", "Source", "open_source"]

TABLES: dict[str, type[Format]] = {
    ".csv": Csv, ".tsv": Tsv, ".parquet": Parquet, ".jsonl": Jsonl, ".ndjson": Jsonl
}  # fmt: skip
LISTS = {".txt", ".lst"}


@dataclass(frozen=True)
class Source:
    name: str
    """An absolute path, or a pattern of such."""
    items: Iterable[Item]
    total: int | None = None
    folder: bool = False
    """Whether everything below the path of this name is the source's."""
    notes: Notes = field(default_factory=Notes, compare=False)
    """What was left out or changed, as far as the items were gone through."""

    def owns(self, id: str, origin: str) -> bool:
        """Whether an entry that came from the source called `origin` is one of this source's."""
        return origin == self.name or (self.folder and Path(id).is_relative_to(self.name))


def is_source(place: str) -> bool:
    """Whether this is a folder, or the name of a file that lists pictures or holds them; else it is one itself."""
    suffix = Path(place).suffix.lower()
    return os.path.isdir(place) or suffix in {*TABLES, *LISTS, ".json", ".tar", ".tgz"} or place.endswith(".tar.gz")


def open_source(place: str, column: str | None = None, below: Path | None = None, *, in_place: bool = False) -> Source:
    """The collection at `place`.

    `column` is the table's column to read, found by its name otherwise; relative paths start `below`, which is the
    file's own folder by default. With `in_place` bytes inside a file stay there until somebody reads them. Raises
    `BadInput` for what is no collection, at once or when it is come to; a row that cannot be used is an item with a
    problem.
    """
    if not place:
        raise BadInput("the source is an empty text; expected a path (a variable of the shell that is not set?)")
    path = Path(os.path.expanduser(place)).absolute()
    suffix, notes = path.suffix.lower(), Notes()
    if os.path.isdir(path):
        found = some_media(path.resolve())
        items = [Item(name_text(file), str(file)) for file in found.paths]
        return Source(name_text(path.resolve()), items, len(items), folder=True, notes=found.notes)
    if suffix == ".tar" or path.name.endswith((".tar.gz", ".tgz")):
        if in_place and suffix != ".tar":
            raise BadInput(f"{place}: expected a .tar that is not compressed, whose samples are read where they lie")
        shards = _shards(path, WebDatasetInPlace() if in_place else WebDataset(), notes)
        return Source(name_text(path), shards, notes=notes)
    if not os.path.isfile(path):
        got = "something else" if os.path.lexists(path) else "nothing there"
        raise BadInput(
            f"{name_text(place):.200}: expected a folder, list, table, JSON or tar of pictures and clips, got {got}"
        )
    home = below.absolute() if below is not None else path.parent
    if suffix in TABLES:
        light = ParquetInPlace() if suffix == ".parquet" else TABLES[suffix]()
        format = light if in_place else TABLES[suffix]()
        return Source(name_text(path), table_items(path, format, light, column, home, notes), notes=notes)
    if suffix in LISTS:
        items = list(_list(path, home, notes))
        return Source(name_text(path), items, len(items), notes=notes)
    if suffix == ".json":
        items = json_items(path, column, home, notes)
        return Source(name_text(path), items, len(items), notes=notes)
    known = ", ".join(sorted([*TABLES, *LISTS, ".json", ".tar"]))
    raise BadInput(f"{name_text(place)}: expected a folder or a file of {known}, got one of {suffix or 'no suffix'}")


def _list(path: Path, home: Path, notes: Notes) -> Iterator[Item]:
    """A line that begins with # and names no file is a comment."""
    for line in lines_of(path):
        if not line.strip():
            continue
        place = place_of(line, home)
        if line.startswith("#") and not is_url(place) and not os.path.lexists(place):
            notes.add(name_text(path), "lines that begin with # and name no file, taken for comments")
        else:
            yield Item(name_text(place), place)


def _shards(path: Path, format: WebDataset, notes: Notes) -> Iterator[Item]:
    """`*` in the name stands for anything: `shard-*.tar`. Of many shards a broken one is its own: its samples up to the
    damage are used."""
    shards = matches(path.parent, path.name, "")
    for shard, _ in shards:
        try:
            for row in format.file_rows(shard, ""):
                yield from _sample(row, name_text(shard), notes)
        except BadInput as error:
            if len(shards) == 1:
                raise
            yield Item(name_text(shard), "", problem=str(error))


def _sample(row: Row, shard: str, notes: Notes) -> Iterator[Item]:
    """The picture of a sample, its clip, or both."""
    for line in row.notes:
        count, _, what = line.partition(" ")
        notes.add(shard, what, int(count))
    id = f"{shard}#{name_text(row.id)}"
    kinds = [kind for kind in ("image", "video") if kind in row.values]
    if row.problem or not kinds:
        got = row.problem or f"expected a picture or a clip, got {', '.join(k for k in row.values if k != '@stem')}"
        yield Item(id, "", problem=f"{name_text(row.where)}: {got}")
        return
    for line in row.lost:
        notes.add(name_text(row.where), f"{line}, left out")
    text = next((key for key in ("txt", "caption") if key in row.values), "")
    records = [{"text": row.values[text]}] if text else []
    records += [row.values["json"]] if isinstance(row.values.get("json"), dict) else []
    known = ("@stem", "image", "video", "json", text)
    metadata = joined([*records, {key: value for key, value in row.values.items() if key not in known}])

    def tell(what: str) -> None:
        notes.add(name_text(row.where), what)

    values = plain(metadata, tell)
    for number, kind in enumerate(kinds):
        own = id if number == 0 else f"{id}.{kind}"
        yield Item(own, row.values[kind], values, ".mp4" if kind == "video" else "")

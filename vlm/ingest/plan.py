"""A collection cut into shards, written down before work begins: what every run and every process goes by.

    FOLDER/_plan/plan.json      what is embedded, by which model, how many items a shard
    FOLDER/_plan/00000.parquet  the items of a shard: their ids, where they are read, what the source says of them
    FOLDER/00000.parquet        the same with vectors, once it is embedded (`vlm.ingest.embedding`)

Readers of folders of parquet pass over what begins with an underscore.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vlm.config import Config, parse
from vlm.datasets.readers.lazy_media import LazyMedia
from vlm.errors import BadInput
from vlm.files import atomic_folder, atomic_write, name_path, name_text, read_json
from vlm.ingest.item import Item
from vlm.ingest.sources import Source

PLACE = Path("_plan") / "plan.json"


class Plan(Config):
    """What the vectors of a folder are of. Two plans that are equal give the same vectors."""

    model: str
    """The space: a model's name and the hash of its weights."""
    width: int
    settings: dict[str, Any]
    """What else vectors depend on: the frames of clips."""
    source: str
    items: int
    shard_items: int
    sha256: str
    """Of the list: ids, places and metadata in order."""

    @property
    def shards(self) -> int:
        return -(-self.items // self.shard_items)

    def size(self, shard: int) -> int:
        """Items of a shard; the last may have fewer."""
        return min(self.shard_items, self.items - shard * self.shard_items)

    @property
    def digest(self) -> str:
        """Stands in every shard, so that none of another plan is taken for one of this."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def there(folder: Path) -> bool:
    return (folder / PLACE).is_file()


def open_plan(folder: Path) -> Plan:
    """Raises `BadInput` where there is none."""
    return parse(Plan, read_json(folder / PLACE), str(folder / PLACE))


def prepare(folder: Path, source: Source, model: str, width: int, settings: dict[str, Any], shard_items: int) -> Plan:
    """The plan of `folder`, written where there is none; the source is gone through in both cases, no picture is read.

    Raises `BadInput` where the folder was begun with another model, list or setting, holds something else, or the
    source is empty.
    """
    wanted: dict[str, Any] = {
        "model": model,
        "width": width,
        "settings": settings,
        "source": source.name,
        "shard_items": shard_items,
    }
    if there(folder):
        plan = open_plan(folder)
        for key, value in wanted.items():
            if (was := getattr(plan, key)) != value:
                raise BadInput(f"{folder}: was begun with {key} {was}, expected the same, got {value}")
        if (plan.items, plan.sha256) != (found := _digest(source)):
            raise BadInput(
                f"{folder}: was begun with {plan.items} items, expected the same list, got another of {found[0]}; "
                "embed it into a new folder (`vlm index SOURCE` brings an index up to date with less work)"
            )
        return plan
    if folder.is_dir() and any(path for path in folder.iterdir() if not path.name.startswith(".")):
        raise BadInput(f"{folder}: expected a new or empty folder for vectors, got one with other files")
    for stray in folder.glob(f".{PLACE.parent}.*"):  # of a run that was killed
        shutil.rmtree(stray, ignore_errors=True)
    with atomic_folder(folder / PLACE.parent) as temporary:
        count, sha256 = _written(source, temporary, shard_items)
        if not count:
            raise BadInput(f"{source.name}: expected pictures or clips, got none")
        plan = Plan(**wanted, items=count, sha256=sha256)
        atomic_write(temporary / PLACE.name, plan.model_dump_json(indent=1))
    return plan


def items_of(folder: Path, shard: int) -> list[Item]:
    """What a shard is to embed, in order."""
    from pyarrow import parquet

    rows = parquet.read_table(folder / PLACE.parent / file_name(shard)).to_pylist()
    return [_item(row) for row in rows]


def file_name(shard: int) -> str:
    return f"{shard:05d}.parquet"


def _digest(source: Source) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    for item in _once(source):
        digest.update(_line(item))
        count += 1
    return count, digest.hexdigest()


def _written(source: Source, folder: Path, shard_items: int) -> tuple[int, str]:
    import pyarrow as pa
    from pyarrow import parquet

    text, number = pa.string(), pa.int64()
    kinds = {"id": text, "place": text, "at": number, "size": number, "column": text, "suffix": text, "metadata": text}
    kinds["problem"] = text
    digest, count, rest = hashlib.sha256(), 0, _once(source)
    while shard := list(islice(rest, shard_items)):
        for item in shard:
            digest.update(_line(item))
        table = pa.Table.from_pylist([_row(item) for item in shard], pa.schema(kinds))
        parquet.write_table(table, folder / file_name(count // shard_items), compression="zstd")
        count += len(shard)
    return count, digest.hexdigest()


def _once(source: Source) -> Iterator[Item]:
    """Of items with one id the first, as `vlm index` has it. Eight bytes of a hash stand for an id."""
    seen: set[int] = set()
    for item in source.items:
        key = int.from_bytes(hashlib.blake2b(item.id.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
        if key in seen and not item.problem:
            source.notes.add(item.id, "named again, left out")
        else:
            seen.add(key)
            yield item


def _line(item: Item) -> bytes:
    return json.dumps(_row(item)).encode() + b"\n"


def _row(item: Item) -> dict[str, Any]:
    place: dict[str, Any] = {"place": name_text(item.place) if isinstance(item.place, str) else item.place}
    if isinstance(item.place, LazyMedia):
        lazy = item.place
        place = {"place": lazy.file, "at": lazy.at, "size": lazy.size, "column": lazy.column}
    return {"id": item.id, **place, "suffix": item.suffix, "metadata": json.dumps(item.metadata),
            **({"problem": item.problem} if item.problem else {})}  # fmt: skip


def _item(row: dict[str, Any]) -> Item:
    place = row["place"]
    if row["at"] is not None:
        place = LazyMedia(place, row["at"], row["size"], row["column"])
    elif isinstance(place, str):
        place = name_path(place)
    return Item(row["id"], place, json.loads(row["metadata"]), row["suffix"], row.get("problem") or "")

"""Items of JSON files that describe pictures: COCO's captions, LLaVA's conversations, and plain lists of records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlm.datasets.readers.jsonfiles import read_json
from vlm.errors import BadInput
from vlm.files import name_text
from vlm.ingest.item import Item
from vlm.ingest.names import place_of
from vlm.ingest.tables import COLUMNS, joined
from vlm.ingest.values import plain
from vlm.notes import Notes


def json_items(path: Path, column: str | None, home: Path, notes: Notes) -> list[Item]:
    """The items of a JSON file; records of one picture are one. Raises `BadInput` for another kind of file."""
    content = read_json(path)
    where = name_text(path)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        found = _coco(content, where, notes)
    elif isinstance(content, list) and any(_is_conversation(record) for record in content):
        found = _llava(content, where, notes)
    elif isinstance(content, list) and content:
        found = _records(content, where, column)
    else:
        got = "an object without it" if isinstance(content, dict) else "an empty list" if content == [] else "neither"
        raise BadInput(f"{where}: expected COCO's JSON (with a list `images`) or a list of records, got {got}")
    items: list[Item] = []
    named: dict[str, list[dict[str, Any]]] = {}
    for number, (name, values) in enumerate(found, 1):
        if not isinstance(name, str) or not name.strip():
            problem = f"{where}: record {number}: expected a path or URL of a picture, got {name!r:.40}"
            items.append(Item(f"{where}#{number}", "", problem=problem))
            continue
        place = place_of(name, home)
        if place not in named:
            items.append(Item(name_text(place), place))
        named.setdefault(place, []).append(values)
    again = sum(len(records) - 1 for records in named.values())
    if again:
        notes.add(where, "records that name a picture again, whose values were added to its own", again)

    def tell(what: str) -> None:
        notes.add(where, what)

    return [
        item if item.problem else Item(item.id, item.place, plain(joined(named[str(item.place)]), tell))
        for item in items
    ]


def _coco(content: dict[str, Any], where: str, notes: Notes) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Captions go to the picture of their id, compared as texts; an id of several pictures tells none apart."""
    captions: dict[str, list[str]] = {}
    for note in content.get("annotations") or ():
        if not isinstance(note, dict):
            notes.add(where, "annotations that are no objects, left out")
        elif "caption" in note:
            captions.setdefault(str(note.get("image_id")), []).extend(_captions(note["caption"], where, notes))
    owners: dict[str, int] = {}
    for image in content["images"]:
        if isinstance(image, dict):
            owners[str(image.get("id"))] = owners.get(str(image.get("id")), 0) + 1
    for id, own in captions.items():
        if id not in owners:
            notes.add(where, "captions of pictures that are not there, left out", len(own))
        elif owners[id] > 1:
            notes.add(where, "captions of an id that several pictures have, left out", len(own))
    for image in content["images"]:
        if not isinstance(image, dict):
            yield image, {}
            continue
        values = {key: value for key, value in image.items() if key != "file_name"}
        own = captions.get(str(image.get("id")), []) if owners[str(image.get("id"))] == 1 else []
        yield image.get("file_name"), {**values, **({"text": "\n".join(own)} if own else {})}


def _captions(caption: Any, where: str, notes: Notes) -> list[str]:
    """A text, or a list of texts."""
    texts = caption if isinstance(caption, list) else [caption]
    good = [text for text in texts if isinstance(text, str) and text.strip()]
    if len(good) < max(1, len(texts)):
        notes.add(where, "captions that are no texts, left out", max(1, len(texts)) - len(good))
    return good


def _is_conversation(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("conversations"), list)


def _llava(content: list[Any], where: str, notes: Notes) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What the assistant says is the picture's text; a record may have several pictures, or none."""
    for record in content:
        if not isinstance(record, dict):
            yield record, {}
            continue
        names = record.get("image") if record.get("image") is not None else record.get("video")
        if names is None:
            notes.add(where, "conversations without a picture, left out")
            continue
        turns = record.get("conversations")
        turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
        said = [turn.get("value") for turn in turns if turn.get("from") in ("gpt", "assistant")]
        text = "\n".join(one for one in said if isinstance(one, str))
        values = {key: value for key, value in record.items() if key not in ("image", "video", "conversations")}
        for name in names if isinstance(names, list) else [names]:
            yield name, {**values, **({"text": text} if text else {})}


def _records(content: list[Any], where: str, column: str | None) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Of a record without the key the picture has no name, and it is skipped; a file without it is no such list."""
    keys = (column,) if column else COLUMNS
    objects = [record for record in content if isinstance(record, dict)]
    if not any(key in record for record in objects for key in keys):
        got = ", ".join(list(objects[0])[:8]) if objects else "no objects"
        raise BadInput(f"{where}: expected one of the keys {', '.join(keys)}, got {got}")
    for record in content:
        wanted = next((key for key in keys if key in record), None) if isinstance(record, dict) else None
        if wanted is None:
            yield None, {}
        else:
            yield record[wanted], {key: value for key, value in record.items() if key != wanted}

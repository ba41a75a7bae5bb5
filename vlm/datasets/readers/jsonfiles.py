"""JSON and JSON lines, and the three layouts of JSON that data sets share: COCO captions, VQA pairs, LLaVA."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlm.config import Config
from vlm.datasets.readers.media import inside
from vlm.datasets.readers.rows import Format, Row, as_text, pick
from vlm.errors import BadInput

MAX_JSON_BYTES = 4 * 2**30
MAX_LINE_BYTES = 64 * 2**20


class Jsonl(Format):
    """A JSON object a line. Without `fields` in the card, the objects are of our own schema."""

    name: Literal["jsonl"] = "jsonl"

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        with _opened(path) as lines:
            number = 0
            while line := lines.readline(MAX_LINE_BYTES):
                number += 1
                where = f"{path}:{number}"
                if len(line) == MAX_LINE_BYTES:
                    raise BadInput(f"{where}: a line of {MAX_LINE_BYTES} bytes or more; expected less")
                if not line.strip():
                    continue
                try:
                    yield Row(_object(parse_json(line, where), where), where, str(number), path.parent)
                except BadInput as error:
                    problem = str(error).removeprefix(f"{where}: ")
                    yield Row({}, where, str(number), path.parent, problem=problem)


class Join(Config):
    """Records of a second list that belong to those of the first."""

    path: str | None = None
    """The file they are in, beside the first (`{split}` is filled in); the same file by default."""
    records: str = ""
    by: tuple[str, str] | str
    """The key whose values are equal in both, or the first's key and the second's."""
    into: str | None = None
    """The key that takes the list of all that belong; without it exactly one must, and its keys are merged in."""


class Records(Format):
    """A list of records somewhere in a JSON file, or an object of them by id (its keys are `@id`)."""

    records: str = ""
    """Where they are (`data`, `a.b`); the whole file by default."""
    columns: tuple[str, ...] = ()
    """The keys of records that are lists."""
    join: Join | None = None

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        content = read_json(path)
        rows = self._records(content, path, self.records)
        if self.join is None:
            return rows
        other = path
        if self.join.path is not None:
            other = inside(path.parent, self.join.path.replace("{split}", split), str(path))
            content = read_json(other)
        return _joined(rows, self.join, self._records(content, other, self.join.records), other)

    def _records(self, content: Any, path: Path, records: str) -> Iterator[Row]:
        for step in records.split(".") if records else ():
            if not isinstance(content, dict) or step not in content:
                found = ", ".join(list(content)[:8]) if isinstance(content, dict) else f"a {type(content).__name__}"
                raise BadInput(f"{path}: no key {step!r} of {records!r}; it has {found or 'none'}")
            content = content[step]
        if not isinstance(content, list | dict):
            raise BadInput(f"{path}: expected a list or an object of records, got {type(content).__name__}")
        pairs: Iterable[tuple[str | int, Any]] = content.items() if isinstance(content, dict) else enumerate(content, 1)
        for key, record in pairs:
            where = f"{path}: record {key}"
            if self.columns and isinstance(record, list):
                if len(record) != len(self.columns):
                    raise BadInput(f"{where}: {len(record)} values; expected {len(self.columns)}")
                record = dict(zip(self.columns, record, strict=True))
            yield Row(_object(record, where), where, str(key), path.parent)


def _joined(rows: Iterator[Row], join: Join, others: Iterator[Row], path: Path) -> Iterator[Row]:
    own, other = (join.by, join.by) if isinstance(join.by, str) else join.by
    partners: dict[str, list[dict[str, Any]]] = {}  # ids are compared as texts: some files have 7 here and "7" there
    for row in others:
        partners.setdefault(str(_plain(pick(row, other), other, row)), []).append(row.values)
    for row in rows:
        value = _plain(pick(row, own), own, row)
        found = partners.pop(str(value), [])
        if join.into is not None:
            yield replace(row, values={**row.values, join.into: found})
        elif len(found) == 1:
            yield replace(row, values={**found[0], **row.values})
        else:
            raise BadInput(f"{row.where}: {own} {value!r} has {len(found)} records in {path}; expected 1")
    if partners:
        raise BadInput(f"{path}: {len(partners)} {other}s match no record, such as {next(iter(partners))!r}")


class Json(Records):
    """Any layout, by the options of `Records`."""

    name: Literal["json"] = "json"


class Coco(Records):
    """COCO captions: `images` and `annotations` of one file, joined by the image's id."""

    defaults: ClassVar[dict[str, Any]] = {"id": "id", "image": "file_name", "captions": "annotations.caption"}

    name: Literal["coco"] = "coco"
    records: str = "images"
    join: Join | None = Join(records="annotations", by=("id", "image_id"), into="annotations")


class Karpathy(Records):
    """Karpathy's split files (`dataset_coco.json`, `dataset_flickr30k.json`, `dataset_flickr8k.json`)."""

    defaults: ClassVar[dict[str, Any]] = {
        "id": "imgid",
        "image": "filename",
        "captions": "sentences.raw",
        "split": "split",
    }

    name: Literal["karpathy"] = "karpathy"
    records: str = "images"


class Vqa(Records):
    """VQA v2 and OK-VQA: a file of questions (the card's `annotations`) and one of answers beside it."""

    defaults: ClassVar[dict[str, Any]] = {
        "id": "question_id",
        "question": "question",
        "answers": "answers.answer",
        "meta": {"answer_type": "answer_type?", "question_type": "question_type?"},
    }

    name: Literal["vqa"] = "vqa"
    answers: str
    """The file of answers; `{split}` is filled in."""

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        join = Join(path=self.answers, records="annotations", by="question_id")
        return Records(records="questions", join=join).file_rows(path, split)


class Llava(Records):
    """LLaVA conversations: every exchange is a question and its answer, without what was said before it.

    Published mixtures hold conversations without a picture, and some others that cannot be used; they are left out.
    """

    defaults: ClassVar[dict[str, Any]] = {"id": "@id", "image": "image", "question": "question", "answers": "answer"}

    name: Literal["llava"] = "llava"

    lenient: ClassVar[bool] = True

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        for row in super().file_rows(path, split):
            try:
                yield from self._exchanges(row)
            except BadInput as error:
                yield replace(row, problem=str(error).removeprefix(f"{row.where}: "))

    def _exchanges(self, row: Row) -> list[Row]:
        speakers = pick(row, "conversations.from")
        turns = [as_text(turn, "a turn", row) for turn in pick(row, "conversations.value")]
        if speakers != ["human", "gpt"] * (len(turns) // 2) or not turns:
            raise BadInput(f"conversations are by {speakers!r:.60}; expected human and gpt in turn")
        if not any(key in row.values for key in ("image", "video")) and "<image>" not in "".join(turns):
            raise BadInput("a conversation without a picture")
        name = str(row.values.get("id", row.id))
        return [
            replace(
                row,
                id=f"{name}#{turn // 2 + 1}",
                values={
                    **row.values,
                    "question": turns[turn].replace("<image>", "").strip(),
                    "answer": turns[turn + 1],
                },
            )
            for turn in range(0, len(turns), 2)
        ]


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises `BadInput` where it is missing, too large, no JSON, or has a key twice."""
    with _opened(path) as file:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadInput(f"{path}: {path.stat().st_size} bytes; expected at most {MAX_JSON_BYTES}")
        return parse_json(file.read(), str(path))


def parse_json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON: {' '.join(str(error).split())[:200]}") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in record if keys.count(key) > 1)!r} is there twice")
    return record


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def _object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def _plain(value: Any, key: str, row: Row) -> str | int:
    if not isinstance(value, str | int):
        raise BadInput(f"{row.where}: key {key!r} is a {type(value).__name__}; expected a text or a whole number")
    return value

"""What others write as conversations: LLaVA's and ShareGPT's JSON, and examples of any data set that has a reader."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT, tidy
from vlm.datasets.examples import Example
from vlm.datasets.readers import READERS
from vlm.datasets.readers.fields import Fields
from vlm.datasets.readers.jsonfiles import Jsonl, Records
from vlm.datasets.readers.rows import Row, as_text, pick
from vlm.errors import BadInput
from vlm.files import atomic_path
from vlm.media.kinds import is_video

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant",
            "assistant": "assistant", "system": "system"}  # fmt: skip
TABLES = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl"}
Told = Callable[[str, str], None]
"""Called with where, and why something is left out."""


def shared_conversations(path: Path, left_out: Told) -> Iterator[dict[str, Any]]:
    """The records of a JSON file, or of JSON lines, that hold `conversations` of `from` and `value`, as LLaVA and
    ShareGPT have them; `image`, `images` and `video` are relative to the file. Raises `BadInput` for another file."""
    rows: Iterable[Row] = (Jsonl() if path.suffix == ".jsonl" else Records()).file_rows(path, "train")
    for row in rows:
        try:
            if row.problem:
                raise BadInput(f"{row.where}: {row.problem}")
            yield _shared(row.values, path.parent)
        except BadInput as error:
            left_out(row.where, str(error).removeprefix(f"{row.where}: "))


def _shared(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise BadInput("expected a list of conversations, each of from and value")
    messages: list[dict[str, Any]] = []
    for turn in turns:
        role, text = SPEAKERS.get(str(turn.get("from"))), turn.get("value")
        if role is None or not isinstance(text, str):
            raise BadInput(f"expected turns by human and gpt with a text each, got {turn.get('from')!r:.40}")
        messages.append({"role": role, "content": text})
    shown = _media(record, folder)
    marks = sum(message["content"].count(mark) for message in messages for mark in ("<image>", "<video>"))
    if shown and not marks:  # some files leave the place out: a picture stands first
        first = next((message for message in messages if message["role"] == "user"), messages[0])
        first["content"] = "<image>" * len(shown) + first["content"]
        marks = len(shown)
    if marks != len(shown):
        raise BadInput(f"expected places for {len(shown)} pictures and clips, got {marks}")
    rest = iter(shown)
    made = [{"role": message["role"], "content": _parts(message["content"], rest)} for message in messages]
    return {"messages": made, **({"id": str(record["id"])} if "id" in record else {})}


def _media(record: dict[str, Any], folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for key, kind in (("image", "image"), ("images", "image"), ("video", "video"), ("videos", "video")):
        value = record.get(key)
        names = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) and name for name in names):
            raise BadInput(f"key {key}: expected paths, got {value!r:.60}")
        found += [{"type": kind, kind: str(folder / name)} for name in names]
    return found


def _parts(text: str, shown: Iterator[dict[str, str]]) -> Any:
    pieces = text.replace("<video>", "<image>").split("<image>")
    if len(pieces) == 1:
        return text
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(pieces):
        parts += [next(shown)] if number else []
        parts += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
    return parts


def conversations_of(example: Example, asked: str | None = None) -> list[dict[str, Any]]:
    """An example as conversations: its question with the first of its answers, its questions in turn, or each of its
    captions behind `asked` (by default the words in which captions are asked for)."""
    clip = not example.pictures
    if clip:
        shown = [{"type": "video", "video": str(example.video)}]
    else:
        shown = [{"type": "image", "image": str(path)} for path in example.pictures]
    pairs = [(turn.question, turn.answers[0]) for turn in example.turns if turn.answers]
    if not pairs and example.question and example.answers:
        options = "".join(f"\n{a}. {text}" for a, text in zip(string.ascii_uppercase, example.options, strict=False))
        pairs = [(example.question + options, example.answers[0])]
    elif not pairs and example.answers and asked:  # a class
        pairs = [(asked, example.answers[0])]
    if pairs:
        return [{"messages": _messages(shown, pairs), "id": example.id}]
    words = asked or (CLIP_PROMPT if clip else CAPTION_PROMPT)
    return [
        {"messages": _messages(shown, [(words, tidy(caption))]), "id": f"{example.id}#{number}"}
        for number, caption in enumerate(example.captions, 1)
    ]


def _messages(shown: list[dict[str, str]], pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for number, (question, answer) in enumerate(pairs):
        content = [*([] if number else shown), {"type": "text", "text": question}]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return messages


def write_conversations(records: Iterable[dict[str, Any]], to: Path) -> int:
    """Write them as JSON lines, whole or not at all; paths below the file's folder become relative to it. How many."""
    home, count = to.absolute().parent, 0
    home.mkdir(parents=True, exist_ok=True)
    with atomic_path(to) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            for message in record["messages"]:
                for part in message["content"] if isinstance(message["content"], list) else ():
                    kind = part["type"]
                    part[kind] = part["text"] if kind == "text" else _relative(part[kind], home)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
        if not count:
            raise BadInput(f"{to}: expected conversations to write, got none")
    return count


def _relative(path: str, home: Path) -> str:
    whole = os.path.abspath(path)
    return os.path.relpath(whole, home) if whole.startswith(f"{home}{os.sep}") else whole


@dataclass(frozen=True)
class Columns:
    """Which of a table's columns hold what."""

    image: str
    """A path, or a picture's bytes."""
    answer: str
    question: str | None = None
    asked: str | None = None
    """The question of all rows, where no column has one; by default the words in which captions are asked for."""
    only: Mapping[str, str] = field(default_factory=dict)
    """Values of columns; rows with others are passed over."""


def table_conversations(path: Path, columns: Columns, home: Path, left_out: Told) -> Iterator[dict[str, Any]]:
    """The rows of a CSV, TSV or parquet file, or of JSON lines, each a question about a picture with its answer; paths
    are relative to `home`. Raises `BadInput` for another file."""
    if path.suffix not in TABLES:
        raise BadInput(f"{path}: expected a table of {', '.join(TABLES)}, got {path.suffix or 'no suffix'}")
    wanted = [columns.image, columns.answer, *([columns.question] if columns.question else []), *columns.only]
    for number, row in enumerate(READERS[TABLES[path.suffix]]().file_rows(path, "train")):
        if not number and not row.problem:
            for name in wanted:
                pick(row, name)  # no record has what the first lacks
        try:
            if row.problem:
                raise BadInput(row.problem)
            if any(str(pick(row, name)) != value for name, value in columns.only.items()):
                continue
            place = _place(row, columns.image, home)
            words, kind = columns.asked, "video" if is_video(place) else "image"
            if columns.question is not None:
                words = as_text(pick(row, columns.question), columns.question, row)
            said = as_text(pick(row, columns.answer), columns.answer, row)
            pair = (words or (CLIP_PROMPT if kind == "video" else CAPTION_PROMPT), said)
            yield {"messages": _messages([{"type": kind, kind: str(place)}], [pair]), "id": row.id}
        except BadInput as error:
            left_out(row.where, str(error).removeprefix(f"{row.where}: "))


def _place(row: Row, column: str, home: Path) -> Path:
    value = pick(row, column)
    if not isinstance(value, str):  # bytes, as parquet has them
        found = Fields(image=column).example(row, home, ())
        if "image" not in found:
            raise BadInput(f"{column}: expected one picture, got {len(found['frames'])}")
        return Path(found["image"])
    place = home / Path(as_text(value, column, row).strip()).expanduser()
    if not place.is_file():
        raise BadInput(f"{place}: no such file")
    return place

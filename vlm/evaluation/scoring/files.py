"""Reading the files that `vlm score` compares: strict about what they hold, and about saying what is wrong."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm.errors import BadInput

# What numpy and zipfile raise for damaged files, with an encrypted or unknown kind of compression as the last two.
_BROKEN = (ValueError, OSError, EOFError, KeyError, MemoryError, OverflowError, RuntimeError, NotImplementedError)


class BadFiles(BadInput):
    """Several things are wrong with the files: `lines` has one sentence each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = list(lines)


class Problems:
    """Collects what is wrong with the files, a line for each fault, so that a user sees all of it at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def some(self, found: Sequence[object], path: str, what: str) -> None:
        """A line with the count, where `what` has {n}, and the first of them, if there are any."""
        if found:
            self.lines.append(f"{path}: {what.replace('{n}', str(len(found)))} (first: {found[0]!r})")

    def same_ids(self, given: Collection[str], wanted: Collection[str], path: str, other: str, things: str) -> None:
        """The ids of two files must be the same. Where they share none, a fault told already is the reason."""
        missing, unknown = [i for i in wanted if i not in given], [i for i in given if i not in wanted]
        if len(missing) < len(wanted):
            self.some(missing, path, f"{{n}} of {len(wanted)} {things} of {other} missing")
            self.some(unknown, path, f"{{n}} of {len(given)} ids unknown to {other}")
        elif not self.lines:
            if not wanted:
                self.lines.append(f"{other}: no {things} in it; expected at least one")
            elif not given:
                self.lines.append(f"{path}: nothing in it; expected the {len(wanted)} {things} of {other}")
            else:
                ids = f"{path}: none of its {len(given)} ids (first: {unknown[0]!r})"
                self.lines.append(f"{ids} is one of the {len(wanted)} of {other} (first: {missing[0]!r})")

    def check(self) -> None:
        if self.lines:
            raise BadFiles(self.lines)


@dataclass(frozen=True)
class Asked:
    """What one item is compared with, and what kind of question it is."""

    answers: list[str]
    answer_type: str | None = None
    question_type: str | None = None


def load_json(path: Path) -> Any:
    """A JSON file's content; raises `BadInput` for one that is missing, empty, not UTF-8, not JSON, or repeats keys."""
    data = _read(path)
    if not data.strip():
        raise BadInput(f"{path}: the file is empty; expected JSON")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 (byte {error.start} is 0x{data[error.start]:02x})") from None
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return found

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from None
    if repeated:
        raise BadInput(f"{path}: {len(repeated)} keys more than once in one object (first: {repeated[0]!r})")
    return content


def load_all(*paths: Path) -> list[Any]:
    """Every file's content by `load_json`; raises `BadFiles` with a line for each that cannot be read."""
    contents, lines = [], []
    for path in paths:
        try:
            contents.append(load_json(path))
        except BadInput as error:
            lines.append(str(error))
    if lines:
        raise BadFiles(lines)
    return contents


def load_arrays(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """These arrays of an .npz file; raises `BadInput` where it is none, one is missing, or one holds Python objects."""
    start = _read(path, 6)
    if not start:
        raise BadInput(f"{path}: the file is empty; expected .npz")
    if not start.startswith((b"PK", b"\x93NUMPY")):  # numpy takes it for a pickle, and says how to trust one
        raise BadInput(f"{path}: not an .npz file")
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise BadInput(f"{path}: one array; expected an .npz file with {' and '.join(keys)}")
        with arrays:
            if absent := [key for key in keys if key not in arrays]:
                there = ", ".join(arrays.files) or "nothing"
                raise BadInput(f"{path}: no {' and no '.join(absent)} in it; got {there}")
            found = {key: arrays[key] for key in keys}
    except (*_BROKEN, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{path}: not an .npz file of plain arrays: {error}") from None
    if other := [key for key, value in found.items() if not isinstance(value, np.ndarray)]:
        raise BadInput(f"{path}: not an .npz file of plain arrays: {other[0]} is none")
    return found


def captions_of(content: Any, path: str, problems: Problems) -> dict[str, str]:
    """`{id: caption}`, or COCO's list of `{"image_id", "caption"}`."""
    return _texts(_rows(content, path, problems, "image_id", "caption"), path, problems, "hypotheses")


def predictions_of(content: Any, path: str, problems: Problems) -> dict[str, str]:
    """`{question_id: answer}`, or the VQA list of `{"question_id", "answer"}`."""
    return _texts(_rows(content, path, problems, "question_id", "answer"), path, problems, "predictions")


def answers_of(content: Any, path: str, problems: Problems, field: str, key: str) -> dict[str, Asked]:
    """What each item is compared with, `field` being "answer" or "caption".

    `{id: [texts]}`, or the official list of objects with the id under `key` and `answers`, bare or under "annotations".
    A text may stand in an object under `field`, and a single answer need not be in a list.
    """
    if isinstance(content, dict) and "annotations" in content:
        content = content["annotations"]
        if not isinstance(content, list):
            raise BadInput(f"{path}: annotations are one {_kind(content)}; expected a list of objects with {key}")
    kinds: dict[str, dict[str, Any]] = {}
    rows = _rows(content, path, problems, key, f"{field}s", kinds)
    name = "references" if field == "caption" else "answers"
    found, wrong, none = {}, [], []
    for i, value in rows.items():
        texts = [value] if isinstance(value, str) and field == "answer" else value
        if isinstance(texts, list):
            texts = [text.get(field) if isinstance(text, dict) else text for text in texts]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            wrong.append(i)
        elif not texts:
            none.append(i)
        else:
            more = kinds.get(i, {})
            types = [None if more.get(k) is None else str(more[k]) for k in ("answer_type", "question_type")]
            found[i] = Asked(texts, *types)
    problems.some(wrong, path, f"{{n}} of {len(rows)} items whose {name} are not a list of strings")
    problems.some(none, path, f"{{n}} of {len(rows)} items have no {name}")
    # An item with a fault has its line already; it is not missing as well. Of a file of faults alone no id counts.
    return found | {i: Asked([]) for i in (*wrong, *none)} if found else {}


def _rows(
    content: Any, path: str, problems: Problems, key: str, field: str, rest: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Id -> value, from an object or from a list of objects; `rest` takes what else a list's objects hold."""
    if isinstance(content, dict):
        return content
    if not isinstance(content, list):
        raise BadInput(f"{path}: one {_kind(content)}; expected an object or a list of objects with {key} and {field}")
    rows: dict[str, Any] = {}
    lacking, twice = [], []
    for place, row in enumerate(content):
        if not isinstance(row, dict) or field not in row or not _is_id(row.get(key)):
            lacking.append(place)
            continue
        if (name := str(row[key])) in rows:
            twice.append(name)
        rows[name] = row[field]
        if rest is not None:
            rest[name] = row
    problems.some(lacking, path, f"{{n}} of {len(content)} rows lack {key} or {field}")
    problems.some(list(dict.fromkeys(twice)), path, "{n} ids more than once")
    return rows


def _texts(rows: dict[str, Any], path: str, problems: Problems, name: str) -> dict[str, str]:
    wrong = {i: _kind(value) for i, value in rows.items() if not isinstance(value, str)}
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(wrong.values()).items())
    problems.some(list(wrong), path, f"{{n}} of {len(rows)} {name} are not strings but {kinds}")
    return rows if len(wrong) < len(rows) else {}


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if isinstance(value, float) and value != value:
        return "NaN"
    names: Iterable[tuple[type, str]] = (
        (bool, "true or false"), (dict, "object"), (list, "list"), (str, "string"), (int, "number"), (float, "number"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def _read(path: Path, count: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None

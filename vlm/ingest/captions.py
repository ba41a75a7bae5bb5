"""Captions of a collection, a row each in a file that grows as they come: after a kill the next run goes on.

A row is whole once its newline is written; what a kill left behind the last one is cut off. Rows that are there are not
made again, and nothing is written to a file that is not of captions.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from vlm.errors import BadInput, Incapable, VlmError
from vlm.index.lock import WriterLock
from vlm.ingest import reading
from vlm.ingest.item import Item
from vlm.ingest.job import ahead, batches
from vlm.ingest.reading import Read, fetched, stamp_of
from vlm.ingest.sync import THREADS, once
from vlm.media.open import Media, Skipped
from vlm.media.video.sampling.base import Sampler
from vlm.notes import Notes

COLUMNS = ("input", "caption", "model")
SUFFIXES = (".jsonl", ".csv")


@dataclass
class Captioned:
    """What a run did."""

    written: int = 0
    before: int = 0
    """Rows of earlier runs."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


class CaptionFile:
    """JSON lines, or CSV with a head; opened for one process at a time. `there` are the inputs that have a row."""

    def __init__(self, path: Path, model: str):
        """Raises `BadInput` for a file that holds something else, or captions by another model; it stays as it is."""
        if path.suffix not in SUFFIXES:
            raise BadInput(f"{path}: expected a file of {' or '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}")
        self.path, self.model = path, model
        self.there: set[str] = set()
        self.mended = 0
        """Bytes of a row that was not whole."""

    def __enter__(self) -> CaptionFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._place = self.path.with_name(f".{self.path.name}.lock")
        self._lock = WriterLock(self._place)
        try:
            self._lock.acquire(str(self.path))
        except VlmError:
            raise VlmError(f"{self.path}: another run is writing to it; try again when it has ended") from None
        try:
            whole = self._read() if self.path.is_file() else 0
            self._file = self.path.open("ab")
            self.mended = self._file.tell() - whole
            self._file.truncate(whole)
            if whole == 0 and self.path.suffix == ".csv":
                self._file.write(_csv_line(COLUMNS))
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._unlock()

    def _unlock(self) -> None:
        self._place.unlink(missing_ok=True)
        self._lock.release()

    def write(self, rows: Iterable[tuple[str, str]]) -> None:
        """Each an input and its caption; with the system when this returns."""
        for input, caption in rows:
            values = (input, caption, self.model)
            if self.path.suffix == ".csv":
                self._file.write(_csv_line(values))
            else:
                self._file.write(_json_line(values))
        self._file.flush()

    def _read(self) -> int:
        """Take down what is there; the bytes of all whole rows."""
        whole = 0
        with self.path.open("rb") as file:
            for number, record in enumerate(self._records(file), 1):
                if not record.endswith(b"\n"):
                    begin = _csv_line(COLUMNS) if self.path.suffix == ".csv" else b'{"input": "'
                    if number == 1 and not record.startswith(begin[: len(record)]):
                        self._refuse(number, record)
                    break
                self._take(number, record)
                whole += len(record)
        return whole

    def _records(self, file: io.BufferedReader) -> Iterator[bytes]:
        """Lines; of a CSV as many as a quoted text goes over."""
        record = b""
        for line in file:
            record += line
            if self.path.suffix != ".csv" or record.count(b'"') % 2 == 0:
                yield record
                record = b""
        if record:
            yield record.rstrip(b"\n")  # inside quotes it ends no row

    def _take(self, number: int, record: bytes) -> None:
        try:
            if self.path.suffix == ".csv":
                (values,) = csv.reader(io.StringIO(record.decode(), newline=""))
                if number == 1 and tuple(values) == COLUMNS:
                    return
                row = dict(zip(COLUMNS, values, strict=True)) if number > 1 else {}
            else:
                row = json.loads(record)
            input, model = str(row["input"]), row["model"]
        except (ValueError, KeyError, TypeError, csv.Error):
            self._refuse(number, record)
        if model != self.model:
            raise BadInput(f"{self.path}: row {number}: was captioned by {model}, expected the same, got {self.model}")
        self.there.add(input)

    def _refuse(self, number: int, record: bytes) -> None:
        got = record.decode(errors="replace").strip()[:60]
        raise BadInput(f"{self.path}: row {number}: expected a caption ({', '.join(COLUMNS)}), got {got!r}")


def caption_all(
    file: CaptionFile,
    items: Iterable[Item],
    caption: Callable[[Sequence[Media]], Sequence[str]],
    *,
    check: Callable[[Media], object] = lambda media: None,
    sampling: Callable[[], Sampler] | None = None,
    offline: bool = False,
    advance: Callable[[int, str], None] = lambda done, text: None,
) -> Captioned:
    """Write a caption of each of `items` that has none; pictures are read ahead while others are captioned.

    What cannot be read, or does not pass `check`, is skipped with the reason and tried again by the next run.
    """
    done, seen, gone_through = Captioned(), set[str](), 0

    def left() -> Iterator[Item]:
        for item in once(items, seen, done.notes):
            if item.id in file.there:
                done.before += 1
            else:
                yield item

    def read(item: Item) -> Read:
        try:
            whole = fetched(item)
        except BadInput as error:
            return Read(item, "", problem=str(error))
        return reading.read(whole, stamp_of(whole), {}, sampling=sampling, offline=offline)

    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches(ahead(pool, read, left())):
            rows: list[tuple[str, Media]] = []
            for found in batch:
                done.notes.extend(found.item.id, found.notes)
                if found.media is None:
                    done.skipped.append(Skipped(found.item.id, str(found.problem)))
                    continue
                try:
                    check(found.media)
                    rows.append((found.item.id, found.media))
                except Incapable:
                    raise
                except BadInput as error:
                    done.skipped.append(Skipped(found.item.id, str(error)))
            if rows:
                texts = caption([media for _, media in rows])
                file.write((id, text) for (id, _), text in zip(rows, texts, strict=True))
                done.written += len(rows)
            gone_through += len(batch)
            advance(gone_through, f"{done.written} captions")
    return done


def _json_line(values: Sequence[str]) -> bytes:
    return json.dumps(dict(zip(COLUMNS, values, strict=True)), ensure_ascii=False).encode() + b"\n"


def _csv_line(values: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue().encode()

"""An index brought up to date with a source: what is new or changed is embedded, the rest is left alone.

An entry's metadata is what the source says of it, and under `file` its content's sha256, a stamp (size and time of
change) that tells without reading whether it may have changed, and the source it came from. Pictures are read and
decoded by threads while the model embeds those before. A kill costs what came after the last commit; the next run finds
what is there and goes on.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from vlm.errors import BadInput
from vlm.index.base import Index, Metadata, Vectors
from vlm.ingest import reading
from vlm.ingest.item import Item
from vlm.ingest.reading import Read, stamp_of
from vlm.ingest.sources import Source
from vlm.media.open import Media, Skipped
from vlm.media.video.sampling.base import Sampler
from vlm.notes import Notes

BATCH = 8
AHEAD = 3
"""Batches that are read before they are embedded: bounds the memory."""
THREADS = 2
COMMIT_SECONDS = 30.0
"""Between two commits of a long run: what a kill can cost."""

Embed = Callable[[Sequence[Media]], Vectors]
Duplicates = Literal["keep", "exact", "near"]


@dataclass
class Synced:
    """What a run did."""

    embedded: int = 0
    """Went through the model."""
    unchanged: int = 0
    """Were neither read nor written."""
    moved: int = 0
    """Known content in another place or with other metadata: written without the model."""
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """Items left out, each with the entry it repeats."""
    removed: int = 0
    vanished: int = 0
    """Entries that stay although their item is no longer in the source."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)
    """What was left out or changed on the way."""

    @property
    def indexed(self) -> int:
        """Items of the source that are in the index now."""
        return self.embedded + self.unchanged + self.moved


def sync(
    index: Index,
    source: Source,
    embed: Embed,
    *,
    sampling: Callable[[], Sampler] | None = None,
    duplicates: Duplicates = "keep",
    threshold: float = 0.95,
    prune: bool = False,
    offline: bool = False,
    advance: Callable[[int, str], None] = lambda done, text: None,
) -> Synced:
    """Bring `index` up to date with `source`.

    With `duplicates="exact"` an item whose content is there already is left out, with `"near"` also one whose vector
    has a cosine of at least `threshold` with an entry's. With `prune` entries go whose item has vanished from the
    source or cannot be read any more. What cannot be read is skipped with the reason; `BadInput` from the source
    itself ends the run, after what was done is committed.
    """
    run = _Run(index, source, embed, duplicates, threshold, partial(reading.read, sampling=sampling, offline=offline))
    seen: set[str] = set()
    coming: deque[Future[Read]] = deque()
    broken: BadInput | None = None
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for done, item in enumerate(once(source.items, seen, run.synced.notes), 1):
                    stamp = stamp_of(item)
                    if run.is_unchanged(item, stamp):
                        run.synced.unchanged += 1
                    else:
                        coming.append(pool.submit(run.read, item, stamp, run.known))
                    while coming and (len(coming) > BATCH * AHEAD or coming[0].done()):
                        run.take(coming.popleft().result())
                    advance(done, f"{run.synced.embedded} embedded")
            except BadInput as error:  # what comes before the bad row is done all the same
                broken = error
            while coming:
                run.take(coming.popleft().result())
        run.write()
        if broken is not None:
            raise broken
        run.clear(seen, prune)
    finally:
        run.commit()
        run.synced.notes.add_all(source.notes)
    return run.synced


class _Run:
    def __init__(
        self,
        index: Index,
        source: Source,
        embed: Embed,
        duplicates: Duplicates,
        threshold: float,
        read: Callable[..., Read],
    ):
        self.index, self.source, self.embed, self.read = index, source, embed, read
        self.duplicates, self.threshold = duplicates, threshold
        self.synced, self._committed, self._changed = Synced(), time.monotonic(), False
        self._batch: list[Read] = []
        self.known: dict[str, str] = {}
        """sha256 -> the id of an entry with that content."""
        self._rows: list[tuple[str, Vectors, dict[str, Any]]] = []
        """Entries that are stored together: an engine takes as long for many as for one."""
        self._unnamed = False
        """Whether a record of the source could not be used, so that it is not known what it names."""
        self._left: dict[str, str] = {}
        """sha256 of what was left out -> the id of the entry it repeats."""
        self._entries = {id: _Entry.of(metadata) for id, metadata in index.items()}
        for id, entry in self._entries.items():
            if entry.sha256:
                self.known.setdefault(entry.sha256, id)

    def is_unchanged(self, item: Item, stamp: str) -> bool:
        entry = self._entries.get(item.id)
        if not stamp or entry is None:
            return False
        return entry == _Entry.of(stored(item, entry.sha256, stamp, self.source.name))

    def take(self, read: Read) -> None:
        """Deal with one item; those that the model has to see are gathered, and written when they are a batch."""
        if read.media is None and read.problem is None and read.sha256 not in self.known | self._left:
            read = self.read(read.item, read.stamp, {})  # the entry with its content was overwritten meanwhile
        self.synced.notes.extend(read.item.id, read.notes)
        self._unnamed |= bool(read.item.problem)
        if read.problem is not None:
            self.synced.skipped.append(Skipped(read.item.id, read.problem))
        elif read.media is None:
            self._repeat(read)
        else:
            self._batch.append(read)
            if len(self._batch) == BATCH:
                self.write()

    def write(self) -> None:
        """Embed and store what is gathered; of items with one content the first goes through the model."""
        first: dict[str, Read] = {}
        for read in self._batch:
            if read.sha256 not in self.known and read.sha256 not in self._left:
                first.setdefault(read.sha256, read)
        vectors = self.embed([read.media for read in first.values() if read.media is not None]) if first else ()
        for read, vector_D in zip(first.values(), vectors, strict=True):
            self._store(read, vector_D)
        for read in self._batch:
            if first.get(read.sha256) is not read:
                self._repeat(read)
        self._batch = []
        self._flush()
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        self._flush()
        if self._changed:
            self.index.commit()
        self._committed, self._changed = time.monotonic(), False

    def clear(self, seen: set[str], prune: bool) -> None:
        """Entries of this source whose item is not there, or cannot be read."""
        self._flush()
        unread = {skip.input for skip in self.synced.skipped}
        if prune and self._unnamed:
            self.synced.notes.add(self.source.name, "records that cannot be used may name entries: nothing is removed")
            prune = False
        own = [id for id, entry in self._entries.items() if self.source.owns(id, entry.origin)]
        if prune:
            self.synced.removed = self._delete([id for id in own if id not in seen or id in unread])
        else:
            self.synced.vanished = sum(id not in seen for id in own)

    def _store(self, read: Read, vector_D: Vectors) -> None:
        if self.duplicates == "near":
            self._flush()
            hits = self.index.search(vector_D[None], 2, min_score=self.threshold)[0]
            others = [hit.id for hit in hits if hit.id != read.item.id]
            if others:
                self._leave_out(read, others[0])
                return
        self._upsert(read, vector_D)
        self.synced.embedded += 1

    def _repeat(self, read: Read) -> None:
        """Content that has been seen, under another id or under this one with other metadata."""
        same = self.known.get(read.sha256)
        if same is None:
            self._leave_out(read, self._left[read.sha256])
        elif self.duplicates != "keep" and same != read.item.id:
            self._leave_out(read, same)
        else:
            self._flush()
            self._upsert(read, self.index.vector(same))
            self.synced.moved += 1

    def _leave_out(self, read: Read, kept: str) -> None:
        self.synced.duplicates.append((read.item.id, kept))
        self._left[read.sha256] = kept
        self._forget(read.item.id)
        self._delete([read.item.id])

    def _delete(self, ids: Sequence[str]) -> int:
        self._flush()
        count = self.index.delete(ids)
        for id in ids:
            self._entries.pop(id, None)
        self._changed |= count > 0
        return count

    def _upsert(self, read: Read, vector_D: Vectors) -> None:
        self._forget(read.item.id)
        metadata = stored(read.item, read.sha256, read.stamp, self.source.name)
        self._rows.append((read.item.id, vector_D, metadata))
        self._entries[read.item.id] = _Entry.of(metadata)
        self.known.setdefault(read.sha256, read.item.id)

    def _flush(self) -> None:
        if self._rows:
            ids, vectors, metadata = zip(*self._rows, strict=True)
            self.index.upsert(ids, np.stack(vectors), metadata)
            self._rows, self._changed = [], True

    def _forget(self, id: str) -> None:
        """The content that an entry had so far."""
        entry = self._entries.get(id)
        if entry is not None and self.known.get(entry.sha256) == id:
            del self.known[entry.sha256]


class _Entry(NamedTuple):
    """What an item is compared with: small, since all of them are in memory."""

    sha256: str
    origin: str
    digest: bytes

    @classmethod
    def of(cls, metadata: Metadata) -> _Entry:
        file = metadata.get("file")
        file = file if isinstance(file, dict) else {}
        digest = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16).digest()
        return cls(str(file.get("sha256") or ""), sys.intern(str(file.get("from") or "")), digest)


def once(items: Iterable[Item], seen: set[str], notes: Notes) -> Iterator[Item]:
    """The first of each id, which join `seen`; of others there is a note."""
    for item in items:
        if item.id in seen and not item.problem:
            notes.add(item.id, "named again, left out")
        else:
            seen.add(item.id)
            yield item


def stored(item: Item, sha256: Any, stamp: str, origin: str) -> dict[str, Any]:
    """The metadata of an item's entry: what its source says of it, and what tells whether it has changed since."""
    return {**item.metadata, "file": {"sha256": sha256, "stamp": stamp, "from": origin}}

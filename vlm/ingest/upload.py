"""The pictures and clips of a collection to a running server of the retrieval API.

Entries have the ids and the metadata that `sync` gives them in an index, so the server itself tells what it has: what
is there with the same content is not sent again, and after a kill the same call goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import quote

from vlm.errors import BadInput, VlmError
from vlm.ingest.item import Item
from vlm.ingest.reading import stamp_of
from vlm.ingest.sources import Source
from vlm.ingest.sync import once, stored
from vlm.ingest.upload_parts import Limits, Part, part_of
from vlm.media.open import Skipped
from vlm.media.urls import is_url
from vlm.notes import Notes
from vlm.remote import Gone, Refused, Server

AT_ONCE = 4
"""Requests."""
BATCH, BATCH_BYTES = 32, 8 * 2**20
"""Items and bytes of a request: what a kill can cost, and with `AT_ONCE` what is in memory."""
LOOK, LOOK_BYTES = 256, 32 * 2**20
"""Items that the server is asked for at once, and bytes of those that are in memory meanwhile."""
LONGEST_ID = 512
"""Longer ones are no item's."""
ENDS = (401, 404, 405, 409, 429, 502, 503)
"""Statuses that no smaller request would do better than."""
AGAIN = ("busy", "timeout", "storage", "unavailable", "gone")
"""Codes of single items that may be taken a little later."""
REPEATS = 5


@dataclass
class Uploaded:
    """What a run did."""

    sent: int = 0
    unchanged: int = 0
    """Were there with the same content and metadata, and not sent."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)

    @property
    def stored(self) -> int:
        """Items of the source that the server has now."""
        return self.sent + self.unchanged

    @property
    def done(self) -> int:
        return self.stored + len(self.skipped)


def upload(
    server: Server,
    collection: str,
    source: Source,
    *,
    offline: bool = False,
    advance: Callable[[int, str], None] = lambda done, text: None,
) -> Uploaded:
    """Bring a collection of `server` up to date with `source`; nothing is deleted there.

    What the server does not take, or what cannot be read, is skipped with the reason. `BadInput` from the source
    itself ends the run, after what came before it is sent; `Gone` says how much was. Raises `Refused` for a key that
    may not write, or a collection that cannot be made.
    """
    run = _Run(server, collection, source, offline, advance)
    broken: BadInput | None = None
    with ThreadPoolExecutor(AT_ONCE, "upload") as pool:
        try:
            try:
                for item in once(map(_addressable, source.items), set(), run.uploaded.notes):
                    run.add(pool, item)
            except Refused:
                raise
            except BadInput as error:  # what comes before the bad row is sent all the same
                broken = error
            run.finish(pool)
        except Gone as error:
            server.close()
            raise VlmError(f"{error}; {run.uploaded.sent} items were sent, the same command goes on there") from None
        except BaseException:
            server.close()  # what is under way is given up
            raise
        finally:
            run.uploaded.notes.add_all(source.notes)
    if broken is not None:
        raise broken
    return run.uploaded


@dataclass(frozen=True)
class _Candidate:
    """An item, what tells whether it has changed, and the metadata of the server's entry, if it has one."""

    item: Item
    stamp: str
    before: dict[str, Any] | None


class _Run:
    def __init__(
        self, server: Server, collection: str, source: Source, offline: bool, advance: Callable[[int, str], None]
    ) -> None:
        self.server, self.source, self.offline, self.advance = server, source, offline, advance
        self.place = f"/v1/collections/{quote(collection, safe='')}"
        self.limits = Limits.of(server.ask("GET", "/v1/limits"))
        self.uploaded = Uploaded()
        self._fresh = not server.ask("GET", self.place)["count"]
        self._look: list[Item] = []
        self._look_bytes = 0
        self._batch: list[_Candidate] = []
        self._batch_bytes = 0
        self._coming: deque[Future[Uploaded]] = deque()

    def add(self, pool: ThreadPoolExecutor, item: Item) -> None:
        if item.problem:
            self._count(Uploaded(skipped=[Skipped(item.id, item.problem)]))
            return
        if own := sorted(key for key in item.metadata if key.startswith("_")):
            what = f"keys of metadata that begin with _ ({', '.join(own)}), which are the server's, left out"
            self.uploaded.notes.add(item.id, what[:300])
            rest = {key: value for key, value in item.metadata.items() if key not in own}
            item = replace(item, metadata=rest)
        self._look.append(item)
        self._look_bytes += len(item.place) if isinstance(item.place, bytes) else 0
        if len(self._look) >= LOOK or self._look_bytes >= LOOK_BYTES:
            self._compare(pool)

    def finish(self, pool: ThreadPoolExecutor) -> None:
        self._compare(pool)
        self._submit(pool)
        while self._coming:
            self._count(self._coming.popleft().result())

    def _compare(self, pool: ThreadPoolExecutor) -> None:
        """What was gathered with what the server has; what differs, or may, is sent or read."""
        known = {} if self._fresh else self._known([item.id for item in self._look])
        unchanged = 0
        for item in self._look:
            candidate = _Candidate(item, stamp_of(item), known.get(item.id))
            if candidate.stamp and self._has(candidate, (candidate.before or {}).get("file", {}).get("sha256")):
                unchanged += 1
                continue
            size = len(item.place) if isinstance(item.place, bytes) else _size(candidate.stamp)
            if self._batch and (self._batch_bytes + size > BATCH_BYTES or len(self._batch) >= self._most):
                self._submit(pool)
            self._batch.append(candidate)
            self._batch_bytes += size
        self._look, self._look_bytes = [], 0
        self._count(Uploaded(unchanged=unchanged))

    @property
    def _most(self) -> int:
        return min(BATCH, self.limits.batch)

    def _has(self, candidate: _Candidate, sha256: object, *, stamped: bool = True) -> bool:
        """Whether the server's entry is that of the item, with this content."""
        if candidate.before is None:
            return False
        wanted = json.loads(json.dumps(stored(candidate.item, sha256, candidate.stamp, self.source.name)))
        if not stamped and isinstance(file := candidate.before.get("file"), dict):
            wanted["file"]["stamp"] = file.get("stamp")  # a file that was touched, or copied
        return bool(candidate.before == wanted)

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        if self._batch:
            self._coming.append(pool.submit(self._deal, self._batch))
        self._batch, self._batch_bytes = [], 0
        while self._coming and (self._coming[0].done() or len(self._coming) > AT_ONCE):
            self._count(self._coming.popleft().result())

    def _count(self, more: Uploaded) -> None:
        done = self.uploaded
        done.sent, done.unchanged = done.sent + more.sent, done.unchanged + more.unchanged
        done.skipped += more.skipped
        self.advance(done.done, f"upload, {done.sent} sent")

    def _known(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The metadata of those that are there, without the server's own keys."""
        found: dict[str, dict[str, Any]] = {}
        ids = [id for id in ids if len(id) <= LONGEST_ID]
        for start in range(0, len(ids), self.limits.top):
            asked = ids[start : start + self.limits.top]
            page = self.server.ask("POST", f"{self.place}/items/scroll", {"ids": asked, "limit": len(asked)})
            for entry in page["items"]:
                metadata = entry["metadata"].items()
                found[entry["id"]] = {key: value for key, value in metadata if not key.startswith("_")}
        return found

    def _deal(self, batch: Sequence[_Candidate]) -> Uploaded:
        """Read and send, in a thread of its own."""
        done, ready = Uploaded(), []
        for candidate in batch:
            try:
                part = part_of(candidate.item, self.limits, offline=self.offline)
            except BadInput as error:
                done.skipped.append(Skipped(candidate.item.id, str(error)))
                continue
            if part.sha256 and self._has(candidate, part.sha256, stamped=False):
                done.unchanged += 1
            else:
                metadata = stored(candidate.item, part.sha256, candidate.stamp, self.source.name)
                ready.append(replace(part, metadata=metadata))
        for urls in (False, True):
            for group in _groups([part for part in ready if bool(part.url) is urls], self.limits):
                self._send(group, done)
        return done

    def _send(self, parts: Sequence[Part], done: Uploaded, repeats: int = REPEATS) -> None:
        """Halved where it is refused as a whole, so that what is at fault is found."""
        try:
            answer = self._asked(parts)["items"]
        except Refused as error:
            if error.status in ENDS or error.code == "forbidden":
                raise
            if len(parts) == 1:
                done.skipped.append(Skipped(parts[0].id, _told(parts[0].id, error.said)))
                return
            for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
                self._send(half, done, repeats)
            return
        again = []
        for part, status in zip(parts, answer, strict=True):
            if status["status"] != "refused":
                done.sent += 1
            elif status["error"]["code"] in AGAIN and repeats:
                again.append(part)
            else:
                done.skipped.append(Skipped(part.id, _told(part.id, status["error"]["message"])))
        if again:
            self.server.pause(2.0 ** (REPEATS - repeats))
            self._send(again, done, repeats - 1)

    def _asked(self, parts: Sequence[Part]) -> Any:
        if parts[0].url:
            items = [{"id": part.id, "url": part.url, "metadata": part.metadata} for part in parts]
            return self.server.ask("POST", f"{self.place}/items", {"items": items})
        return self.server.ask("POST", f"{self.place}/items", form=partial(_form, parts))


@contextmanager
def _form(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    """Large files are read from the disk while they are sent."""
    with ExitStack() as open_files:
        files = []
        for part in parts:
            held = part.content
            content = held if isinstance(held, bytes) else open_files.enter_context(held.open("rb"))
            files.append(("file", (part.name, content, part.mime)))
        metadata = json.dumps([part.metadata for part in parts], ensure_ascii=False)
        yield {"data": {"id": [part.id for part in parts], "metadata": metadata}, "files": files}


def _groups(parts: Sequence[Part], limits: Limits) -> Iterator[list[Part]]:
    """As they fit into requests."""
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and size + part.size > min(BATCH_BYTES, limits.body_bytes // 2):
            yield group
            group, size = [], 0
        group.append(part)
        size += part.size
    if group:
        yield group


def _size(stamp: str) -> int:
    """Of a file, as its stamp says."""
    size = stamp.partition("-")[0]
    return int(size) if size.isdecimal() else 0


def _told(id: str, said: str) -> str:
    return said if id in said else f"{id}: {said.removeprefix('image bytes: ')}"


def _addressable(item: Item) -> Item:
    """A path with `..` in it, which an address would take for a step, is named by where it leads."""
    if isinstance(item.place, str) and ".." in item.id.split("/") and not is_url(item.id):
        return replace(item, id=os.path.normpath(item.id))
    return item

"""Collections of another model embedded anew, from what their items were made of.

The new index is made beside the old one, in the collection's folder; writing `collection.json` anew, which is one
rename, makes it the collection's. What a kill leaves beside that is swept by the next that opens the collection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from vlm.errors import BadInput, VlmError, unknown
from vlm.index import create_index, open_index
from vlm.index.base import Index, Metadata
from vlm.server.embedding.embedder import Embedder
from vlm.server.embedding.queued import QueuedModel
from vlm.server.http.errors import ApiError
from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Limits, Settings
from vlm.server.http.sources import ClipFile, PictureBytes
from vlm.server.retrieval.collection import MEDIA, keys_of
from vlm.server.retrieval.items import Entry
from vlm.server.retrieval.media import Media
from vlm.server.retrieval.originals import Originals
from vlm.server.retrieval.service import Service
from vlm.server.retrieval.stored import About, read_about, sweep

STEP = 256
"""Entries of one commit."""
SECONDS = 3600.0
"""That a batch may take: nobody waits for it."""
Status = Literal["other", "unchanged", "refused", "reindexed"]


@dataclass
class Found:
    """A collection: one of the `other` model, which can be embedded anew, or what came of that."""

    name: str
    status: Status
    items: int = 0
    snapshots: int = 0
    """Of the old index, which go with it."""
    lost: dict[str, str] = field(default_factory=dict)
    """Ids of items without an original, and why."""
    reason: str = ""
    """Why it is refused, where that is not for its items."""

    def refuse(self, leave_out: bool) -> bool:
        """Whether it is, for its items that are lost: for any, or where they are to be left out, for all of them."""
        if self.lost and (not leave_out or len(self.lost) == self.items):
            self.status = "refused"
        return self.status == "refused"

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(self.lost.values()).most_common())


def survey(root: Path, names: Sequence[str], space: str, media: Sequence[Path], *, leave_out: bool) -> list[Found]:
    """Each collection, or those that are named, and which of its items have no original: it is refused for these,
    unless they are to be left out. Nothing is changed but that what a kill left is swept.

    Raises `BadInput` for a folder without collections, and a name that is none."""
    folder = root / "collections"
    if not folder.is_dir():
        raise BadInput(f"{root}: expected the folder of a service (--root), got one without collections")
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in names:
        if name not in there:
            raise unknown("collection", name, there)
    found = [_surveyed(folder / name, space, media) for name in there if not names or name in names]
    for one in found:
        if one.status == "other":
            one.refuse(leave_out)
    return found


def _surveyed(folder: Path, space: str, media: Sequence[Path]) -> Found:
    try:
        about = read_about(folder)
        if about.model == space:
            with closing(open_index(about.at(folder))) as index:
                return Found(folder.name, "unchanged", len(index))
        with closing(_swept(folder)) as index:
            found = Found(folder.name, "other", len(index), len(index.snapshots()))
            originals = Originals(Media(folder / "media"), media)
            for id, metadata in index.items():
                try:
                    originals.of(id, metadata)
                except BadInput as error:
                    found.lost[id] = str(error)
            return found
    except (VlmError, OSError) as error:
        return Found(folder.name, "refused", reason=str(error))


def reindex(
    root: Path,
    found: Sequence[Found],
    embedder: Embedder,
    media: Sequence[Path],
    *,
    leave_out: bool,
    advance: Callable[[int, str], None] = lambda done, text: None,
) -> None:
    """Embed those of the `other` model anew; each then says what came of it. One with an item whose original cannot be
    read is refused and left as it is, unless these are to be left out."""
    asyncio.run(_reindex(root, found, embedder, media, leave_out, advance))


async def _reindex(
    root: Path, found: Sequence[Found], embedder: Embedder, media: Sequence[Path], leave_out: bool,
    advance: Callable[[int, str], None],
) -> None:  # fmt: skip
    settings = Settings(root=root, media=tuple(media), limits=Limits(answer_seconds=SECONDS))
    service, done = Service(settings, [embedder], Metrics()), 0

    def more(name: str, count: int) -> None:
        nonlocal done
        done += count
        advance(done, name)

    try:
        for one in found:
            if one.status == "other":
                try:
                    await _Anew(service, root / "collections" / one.name, one, leave_out).run(more)
                except (VlmError, OSError) as error:
                    one.status, one.reason = "refused", str(error)
    finally:
        await service.close()


class _Anew:
    """One collection on its way."""

    def __init__(self, service: Service, folder: Path, found: Found, leave_out: bool) -> None:
        self.model: QueuedModel = service.models.named(None)
        self.folder, self.found, self.leave_out = folder, found, leave_out
        self.media = Media(folder / "media")
        self.originals = Originals(self.media, service.settings.media)

    async def run(self, more: Callable[[str, int], None]) -> None:
        try:
            with closing(open_index(read_about(self.folder).at(self.folder))) as old:
                await self._made(read_about(self.folder), old, more)
        finally:  # whichever of the two there is
            _swept(self.folder).close()

    async def _made(self, about: About, old: Index, more: Callable[[str, int], None]) -> None:
        embedder = self.model.embedder
        new = about.anew(self.folder, embedder.space, embedder.width)
        with closing(create_index(new.at(self.folder), new.width, new.model, engine=about.engine or None)) as index:
            for rows in _steps(old):
                made = await asyncio.gather(*(self._entry(id, metadata) for id, metadata in rows))
                entries = [entry for entry in made if entry is not None]
                if self.found.refuse(self.leave_out):
                    return
                if entries:
                    vectors = np.stack([entry.vector for entry in entries])
                    index.upsert([entry.id for entry in entries], vectors, [entry.metadata for entry in entries])
                    index.commit()
                more(self.folder.name, len(entries))
            index.commit()
        new.write(self.folder)
        self.found.status = "reindexed"

    async def _entry(self, id: str, metadata: Metadata) -> Entry | None:
        try:
            return await self._embedded(id, dict(metadata))
        except BadInput as error:
            self.found.lost[id] = str(error)
        except ApiError as error:
            self.found.lost[id] = error.message
        return None

    async def _embedded(self, id: str, metadata: dict) -> Entry:
        """As an upload is (`items.py`), but that what is shown of it is there."""
        async with self.model.turn():
            original = await asyncio.to_thread(self.originals.of, id, metadata)
            if isinstance(original, str):
                return Entry(id, (await self.model.texts([original], patient=True))[0], metadata)
            name = str(metadata.get("_name", ""))
            if metadata["_kind"] == "video":
                clip = ClipFile(original, "", name, ours=False)
                embedded = await self.model.clip(clip, patient=True, shown=True)
            else:
                content = await asyncio.to_thread(original.read_bytes)
                embedded = await self.model.picture(PictureBytes(content, name), patient=True)
        if isinstance(old := metadata.get(MEDIA), str):
            metadata[MEDIA] = await asyncio.to_thread(self.media.keep_again, old, embedded.frames)
        return Entry(id, embedded.vector, metadata)


def _steps(index: Index) -> Iterator[list[tuple[str, Metadata]]]:
    rows = iter(index.items())
    while step := list(islice(rows, STEP)):
        yield step


def _swept(folder: Path) -> Index:
    """A collection's index, with nothing beside it that is not named."""
    about = read_about(folder)
    sweep(folder, about)
    index = open_index(about.at(folder), model=about.model, width=about.width)
    Media(folder / "media").sweep(set(keys_of(metadata for _, metadata in index.items())))
    return index

"""Collections: an index each, in a folder of its own below the server's root.

<root>/.lock                  held while a server runs, or `vlm reindex`
<root>/collections/<name>/    as `stored.py` has it
<root>/tmp/                   uploads as they come; emptied at the start
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vlm.errors import BadInput, VlmError
from vlm.files import atomic_folder
from vlm.index import create_index, drop_index, open_index
from vlm.index.base import Index
from vlm.index.checks import same
from vlm.server.embedding.embedder import few_threads
from vlm.server.http.errors import ApiError, log, storage
from vlm.server.http.settings import Settings
from vlm.server.retrieval.collection import Collection, Committed, keys_of
from vlm.server.retrieval.opened import Opened
from vlm.server.retrieval.reading import Held
from vlm.server.retrieval.snapshots import Snapshots
from vlm.server.retrieval.stored import About, read_about, sweep

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def temporary_of(root: Path) -> Path:
    """Where uploads come; emptied at the start."""
    return root / "tmp"


class Collections:
    """All of a server's, by name. Made in the event loop."""

    def __init__(self, settings: Settings, widths: Mapping[str, int], committed: Committed) -> None:
        """`widths` is of each space that is served; of the first are collections of which it is not said."""
        self._settings, self._widths, self._committed = settings, widths, committed
        self._default = next(iter(widths))
        self._folder = settings.root / "collections"
        self._readers = ThreadPoolExecutor(4, "reader", initializer=few_threads)
        self._open: dict[str, Held] = {}
        self.aside: dict[str, str] = {}
        """Folders that could not be opened, and why: they stay as they are, and their names are taken."""
        self.snapshots = Snapshots(settings.limits.snapshots)
        self._changing = asyncio.Lock()
        self.temporary = temporary_of(settings.root)

    async def open(self) -> None:
        """Open what is there; what cannot be opened - no collection, damaged, of another model - is set aside."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        await asyncio.to_thread(self._try)
        self._distinct()
        for left in self._folder.glob(".*"):  # half made, or half deleted
            shutil.rmtree(left, ignore_errors=True)
        for folder in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            await self._try_open(folder.name, folder, self._opened, folder, asyncio.get_running_loop())
        for name, folder in self._settings.opened.items():
            await self._try_open(name, folder, self._served, name, folder)

    async def _try_open(self, name: str, folder: Path, made: Callable[..., Held], *given: object) -> None:
        try:
            self._open[name] = await asyncio.to_thread(made, *given)
        except (VlmError, OSError) as error:
            self.aside[name] = " ".join(str(error).removeprefix(f"{folder}: ").replace(f"{folder}{os.sep}", "").split())
            log.warning("collection %s is set aside: %s", name, self.aside[name])

    def _distinct(self) -> None:
        """Raises `BadInput` where an index that is to be opened is called as a collection is."""
        there = {folder.name.lower() for folder in self._folder.iterdir()}
        for name, folder in self._settings.opened.items():
            if name.lower() in there:
                root = self._settings.root
                raise BadInput(f"--open {name}={folder}: expected another name, {root} has a collection {name}")

    def __iter__(self) -> Any:
        return iter([self._open[name] for name in sorted(self._open)])

    def __getitem__(self, name: str) -> Held:
        """To read. Raises `ApiError` 404."""
        if name in self.aside:
            raise ApiError(409, "set_aside", f"collection {name} could not be opened: {self.aside[name]}")
        if name not in self._open:
            raise ApiError(404, "collection_not_found", f"no collection {name[:80]!r}")
        return self._open[name]

    def writable(self, name: str) -> Collection:
        """Raises `ApiError` 404, and 409 for one that is served as it is."""
        found = self[name]
        if not isinstance(found, Collection):
            raise ApiError(409, "read_only", f"collection {name} is an index that is served to be read alone")
        return found

    async def get_or_create(self, name: str) -> Collection:
        """Raises `ApiError` for a name that is none."""
        if name not in self._open:
            try:
                return await self.create(name)
            except ApiError as error:
                if error.code != "exists":  # made by another request meanwhile
                    raise
        return self.writable(name)

    async def create(self, name: str, space: str | None = None) -> Collection:
        """Of one of the spaces that are served. Raises `ApiError` for a name that is none, or taken."""
        if not NAME.fullmatch(name):
            raise ApiError(422, "invalid", "name: expected 1 to 64 letters, digits, - and _, a letter or digit first")
        async with self._changing:
            # Folders of some systems, and stores, do not tell cases apart.
            taken = (*self._open, *self.aside)
            if (there := next((other for other in taken if other.lower() == name.lower()), None)) is not None:
                raise ApiError(409, "exists", f"there is a collection {there!r} already")
            if len(self._open) >= self._settings.limits.collections:
                raise ApiError(409, "too_many", f"expected at most {self._settings.limits.collections} collections")
            try:
                loop = asyncio.get_running_loop()
                made = await asyncio.to_thread(self._created, name, space or self._default, loop)
            except (VlmError, OSError) as error:
                log.error("collection %s could not be made: %s", name, " ".join(str(error).split()))
                raise storage() from None
            self._open[name] = made
        return made

    async def delete(self, name: str) -> None:
        async with self._changing:
            collection = self.writable(name)
            del self._open[name]
            await collection.close()
            self.snapshots.forget(collection)
            gone = self._folder / f".{name}-{uuid.uuid4().hex}"
            try:
                collection.folder.rename(gone)
            except OSError:
                self._open[name] = await asyncio.to_thread(self._opened, collection.folder, asyncio.get_running_loop())
                raise
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        if isinstance(collection.place, str):  # in a store elsewhere
            try:
                await asyncio.to_thread(drop_index, collection.place)
            except VlmError as error:
                log.error("collection %s is gone, but not from its store: %s", name, " ".join(str(error).split()))

    async def close(self) -> None:
        for collection in self:
            await collection.close()
        self._readers.shutdown()

    def _try(self) -> None:
        """Make an index and drop it: the engine is imported, and found to work, before anybody waits for it."""
        name = f"trial-{uuid.uuid4().hex}"
        place = self._stored(name) or self.temporary / name
        index = create_index(place, self._widths[self._default], self._default, engine=self._engine)
        index.commit()
        index.close()
        drop_index(place)

    @property
    def _engine(self) -> str | None:
        """Of new collections; a store elsewhere has but one."""
        return self._settings.engine if self._settings.store is None else None

    def _stored(self, name: str) -> str | None:
        return None if self._settings.store is None else f"{self._settings.store.rstrip('/')}/{name}"

    def _created(self, name: str, space: str, loop: asyncio.AbstractEventLoop) -> Collection:
        place = self._stored(name)
        about = About(engine=self._engine or "", model=space, width=self._widths[space], place=place)
        with atomic_folder(self._folder / name) as folder:
            index = create_index(about.at(folder), about.width, about.model, engine=self._engine)
            index.commit()
            index.close()
            about.write(folder)
        return self._opened(self._folder / name, loop)

    def _opened(self, folder: Path, loop: asyncio.AbstractEventLoop) -> Collection:
        about = read_about(folder)
        if about.model not in self._widths:
            served = " or ".join(self._widths)
            told = f"expected a collection of model {served}, got one of {about.model}"
            raise BadInput(f"{folder}: {told}; `vlm reindex` makes it anew")
        sweep(folder, about)
        place = about.at(folder)

        def open_at(snapshot: str | None) -> Index:
            return open_index(place, model=about.model, width=self._widths[about.model], snapshot=snapshot)

        async def made(index: Index) -> Collection:  # a writer belongs to the event loop
            return Collection(folder, place, index, open_at, self._readers, self._committed)

        index = open_at(None)
        collection = asyncio.run_coroutine_threadsafe(made(index), loop).result()
        keys = set(keys_of(metadata for _, metadata in index.items()))
        if count := collection.media.sweep(keys):
            log.info("%s: removed %d files that no entry names", folder.name, count)
        return collection

    def _served(self, name: str, folder: Path) -> Opened:
        def open_at(snapshot: str | None) -> Index:
            index = open_index(folder, snapshot=snapshot)
            try:
                served = index.model if index.model in self._widths else " or ".join(self._widths)
                same(folder, index.model, index.width, served, self._widths.get(served))
            except BadInput:
                index.close()
                raise
            return index

        return Opened(name, folder, open_at, self._readers, [root.resolve() for root in self._settings.media])

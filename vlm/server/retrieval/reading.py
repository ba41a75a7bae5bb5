"""What is read of an index and what is kept beside it: a collection as it is, or as it was at a snapshot. D width."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from vlm.errors import BadInput
from vlm.index.base import Hit, Index, Metadata, Vectors, Where
from vlm.server.http.errors import ApiError
from vlm.server.retrieval.entries import page
from vlm.server.retrieval.media import Media

T = TypeVar("T")
Open = Callable[[str | None], Index]
"""An index as it is, or as it was at a snapshot."""


class Readable(ABC):
    """By name. The index lies at `place`; `media` is what is kept beside it, if anything is."""

    media: Media | None

    def __init__(self, name: str, place: str | Path, media: Media | None, readers: ThreadPoolExecutor) -> None:
        self.name, self.media, self.place, self._readers = name, media, place, readers

    @property
    @abstractmethod
    def index(self) -> Index: ...

    def __len__(self) -> int:
        return len(self.index)

    async def page(
        self, limit: int, after: str | None, where: Where | None, ids: Sequence[str] | None, *, vectors: bool
    ) -> list[tuple[str, Metadata, list[float] | None]]:
        """Ids, metadata, and vectors if they are wanted. Raises `ApiError` for a bad filter."""

        def work(index: Index) -> list[tuple[str, Metadata, list[float] | None]]:
            found = []
            for id, metadata in page(index, limit, after, where, ids):
                with suppress(KeyError):  # deleted meanwhile
                    found.append((id, metadata, index.vector(id).tolist() if vectors else None))
            return found

        try:
            return await self._read(work)
        except BadInput as error:
            raise ApiError(422, "invalid", str(self._told(error))) from None

    async def search(
        self,
        vectors: Vectors,
        top: int,
        where: Where | None,
        least: float | None,
        then: Callable[[list[list[Hit]], Callable[[str], Vectors]], T],
        words: Sequence[str] | None = None,
    ) -> T:
        """What `then` makes of the hits, and of what gives an entry's vector, in the same thread; by `words` too, one
        text a query, where they are given."""

        def work(index: Index) -> T:
            if words is None:
                return then(index.search(vectors, top, where=where, min_score=least), index.vector)
            pairs = zip(vectors, words, strict=True)
            found = [index.search_hybrid(vector, text, top, where=where) for vector, text in pairs]
            return then([[hit for hit in hits if least is None or hit.score >= least] for hits in found], index.vector)

        try:
            return await self._read(work)
        except BadInput as error:
            raise self._told(error) from None

    async def entry(self, id: str) -> tuple[dict[str, Any], Vectors]:
        """Metadata, and the vector `[D]`. Raises `ApiError` 404."""

        def work(index: Index) -> tuple[dict[str, Any], Vectors]:
            return dict(index.metadata(id)), index.vector(id)

        try:
            return await self._read(work)
        except KeyError:
            raise ApiError(404, "item_not_found", f"collection {self.name} has no item {id!r}") from None

    def _told(self, error: Exception) -> Exception:
        """Where an index lies is nobody's business."""
        return BadInput(str(error).removeprefix(f"{self.place}: ")) if isinstance(error, BadInput) else error

    async def _read(self, work: Callable[[Index], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, self.index)


class Held(Readable):
    """An index that the server has open, and its snapshots."""

    def __init__(
        self, name: str, place: str | Path, media: Media | None, open_at: Open, readers: ThreadPoolExecutor
    ) -> None:
        super().__init__(name, place, media, readers)
        self._open = open_at

    def kind(self, id: str, metadata: Metadata) -> str | None:
        """Whether an entry is shown as `image`, `video` or `text`."""
        found = metadata.get("_kind")
        return found if isinstance(found, str) else None

    async def snapshots(self) -> list[str]:
        """The oldest first."""
        return await self._read(lambda index: index.snapshots())

    def opened(self, snapshot: str) -> Index:
        """As it was, to read. Raises `BadInput` where it is damaged."""
        try:
            return self._open(snapshot)
        except BadInput as error:
            raise self._told(error) from None

    @abstractmethod
    async def close(self) -> None: ...


class Snapshot(Readable):
    """A collection as it was."""

    def __init__(self, of: Held, index: Index) -> None:
        super().__init__(of.name, of.place, of.media, of._readers)
        self._index = index

    @property
    def index(self) -> Index:
        return self._index

"""A collection: one index, what is kept beside it, and the one that writes to both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from vlm.errors import BadInput
from vlm.index.base import Index, Metadata, Vectors, Where
from vlm.server.http.errors import ApiError
from vlm.server.retrieval.media import Media
from vlm.server.retrieval.reading import Held, Open
from vlm.server.retrieval.writer import Chosen, Delete, Upsert, Writer

T = TypeVar("T")
MEDIA = "_media"
"""The key of an entry's metadata that names its files; callers' own keys cannot begin so."""
SHA256 = "_sha256"
"""The key of the content of a file that was named, and not sent, beside its `_path`."""
Committed = Callable[[str, int, float], None]


class Collection(Held):
    """One index, what is kept beside it, and the one that writes to it."""

    media: Media

    def __init__(self, folder: Path, place: str | Path, index: Index, open_at: Open, readers: ThreadPoolExecutor,
                 committed: Committed) -> None:  # fmt: skip
        super().__init__(folder.name, place, Media(folder / "media"), open_at, readers)
        self.folder = folder
        self._writer = Writer(index, lambda: open_at(None), lambda count, seconds: committed(self.name, count, seconds))

    @property
    def index(self) -> Index:
        return self._writer.index

    async def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[dict[str, Any]]) -> list[bool]:
        """Whether each id was known; durable then."""
        try:
            before = await self._writer.write(Upsert(ids, vectors, metadata))
        except Exception as error:
            self.media.forget(keys_of(metadata))
            raise self._told(error) from None
        self.media.forget(keys_of(before))
        return [row is not None for row in before]

    async def delete(self, ids: Sequence[str]) -> int:
        """How many there were."""
        before = await self._writer.write(Delete(ids))
        self.media.forget(keys_of(before))
        return sum(row is not None for row in before)

    async def delete_chosen(self, ids: Sequence[str] | None, where: Where | None) -> int:
        """Of those that are named, or that fit; how many there were. Raises `ApiError` for a bad filter."""
        before = await self._chosen(Chosen(ids, where, None))
        self.media.forget(keys_of(before))
        return len(before)

    async def update(self, ids: Sequence[str] | None, where: Where | None, patch: Metadata, most: int) -> int:
        """Change metadata, of at most so many bytes afterwards; how many entries that were."""
        return len(await self._chosen(Chosen(ids, where, patch, most)))

    async def _chosen(self, change: Chosen) -> list[Metadata | None]:
        try:
            return await self._writer.write(change)
        except BadInput as error:
            raise ApiError(422, "invalid", str(self._told(error))) from None

    async def do(self, work: Callable[[Index], T]) -> T:
        """`work` of the index, between two commits."""
        return await self._writer.do(work)

    async def close(self) -> None:
        await self._writer.close()


def keys_of(rows: Iterable[Metadata | None]) -> list[str]:
    """The names of what is kept beside these entries."""
    return [key for row in rows if row is not None and isinstance(key := row.get(MEDIA), str)]

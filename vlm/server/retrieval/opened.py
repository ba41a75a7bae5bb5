"""An index that `vlm index` made, served as it lies there: it is searched and never written to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlm.files import name_path
from vlm.index.base import Index, Metadata
from vlm.media.kinds import medium_of
from vlm.server.http.errors import ApiError
from vlm.server.http.sources import found_below
from vlm.server.retrieval.reading import Held, Open


class Opened(Held):
    """Its entries' ids are the paths that were indexed. What lies below `roots` is shown."""

    def __init__(self, name: str, folder: Path, open_at: Open, readers: ThreadPoolExecutor, roots: Sequence[Path]):
        super().__init__(name, folder, None, open_at, readers)
        self._index, self._roots = open_at(None), roots

    @property
    def index(self) -> Index:
        return self._index

    async def close(self) -> None:
        await asyncio.to_thread(self._index.close)

    def kind(self, id: str, metadata: Metadata) -> str | None:
        path = self.file(id)
        return None if path is None else medium_of(path)

    def file(self, id: str) -> Path | None:
        """Of an entry, if it may be shown: a relative path is from where the server was started, or below a root."""
        for name in (os.path.abspath(name_path(id)), id):
            try:
                path = found_below(self._roots, name)
            except ApiError:
                continue
            if path.is_file():
                return path
        return None

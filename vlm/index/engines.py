"""The engines behind an index: where each keeps its entries, how a new one is made and one that is there found.

What an engine needs is imported when it is asked for.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vlm.errors import BadInput
from vlm.index.base import Index
from vlm.registry import Registry

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

Options = Mapping[str, str] | None
Place = str | Path


class Engine(ABC):
    """A place is a folder, or a URL of one of the engine's `schemes`."""

    in_folders: ClassVar[bool] = True
    schemes: ClassVar[tuple[str, ...]] = ()
    sign: ClassVar[str | None] = None
    """A file or folder that is in every folder with an index of this engine, and in no other's."""
    package: ClassVar[str | None] = None
    """What has to be installed for it."""

    @abstractmethod
    def create(self, place: Place, width: int, model: str, options: Options) -> Index:
        """An empty index. Raises `BadInput` where something is there already."""

    @abstractmethod
    def open(
        self, place: Place, *, model: str | None, width: int | None, snapshot: str | None, options: Options
    ) -> Index:
        """The index at `place`. Raises `BadInput` where there is none, or none of this model and width."""

    def there(self, place: Place, options: Options) -> bool:
        return self.sign is not None and (Path(place) / self.sign).exists()

    def drop(self, place: Place, options: Options) -> None:
        """Remove the index that is there, with its snapshots."""
        shutil.rmtree(place)

    def needed(self, place: Place) -> None:
        """Raises `BadInput` where the engine's package is not installed."""
        if self.package is not None and find_spec(self.package) is None:
            raise BadInput(
                f"{place}: needs the package {self.package}, which is not installed (pip install 'vlm[index]')"
            )


ENGINES: Registry[Engine] = Registry("engine")


class Flat(Engine):
    sign = "manifest.json"

    def create(self, place: Place, width: int, model: str, options: Options) -> Index:
        from vlm.index.flat import FlatIndex

        return FlatIndex.create(Path(place), width, model)

    def open(
        self, place: Place, *, model: str | None, width: int | None, snapshot: str | None, options: Options
    ) -> Index:
        from vlm.index.flat import FlatIndex

        return FlatIndex.open(place, model=model, width=width, snapshot=snapshot)


class Lance(Engine):
    """`options` are LanceDB's storage options."""

    schemes = ("s3", "gs", "az")
    sign = "entries.lance"
    package = "lancedb"

    def create(self, place: Place, width: int, model: str, options: Options) -> Index:
        from vlm.index.lance import LanceIndex

        return LanceIndex.create(place, width, model, storage_options=options)

    def open(
        self, place: Place, *, model: str | None, width: int | None, snapshot: str | None, options: Options
    ) -> Index:
        from vlm.index.lance import LanceIndex

        return LanceIndex.open(place, model=model, width=width, snapshot=snapshot, storage_options=options)

    def there(self, place: Place, options: Options) -> bool:
        if "://" not in str(place):
            return super().there(place, options)
        from vlm.index import lance_table

        return lance_table.there(str(place), options)

    def drop(self, place: Place, options: Options) -> None:
        if "://" not in str(place):
            return super().drop(place, options)
        from vlm.index import lance_table

        return lance_table.drop(str(place), options)


class Qdrant(Engine):
    """A collection of a server. `options` may hold its `api_key`, which else is `$QDRANT_API_KEY`."""

    in_folders = False
    schemes = ("http", "https")
    package = "qdrant_client"

    def create(self, place: Place, width: int, model: str, options: Options) -> Index:
        from vlm.index.qdrant import QdrantIndex

        return QdrantIndex.create(*_server(place, options), width, model)

    def open(
        self, place: Place, *, model: str | None, width: int | None, snapshot: str | None, options: Options
    ) -> Index:
        from vlm.index.qdrant import QdrantIndex

        return QdrantIndex.open(*_server(place, options), model=model, width=width, snapshot=snapshot)

    def there(self, place: Place, options: Options) -> bool:
        from vlm.index import qdrant

        return qdrant.there(*_server(place, options))

    def drop(self, place: Place, options: Options) -> None:
        from vlm.index import qdrant

        qdrant.drop(*_server(place, options))


def _server(place: Place, options: Options) -> tuple[QdrantClient, str]:
    from qdrant_client import QdrantClient

    server, _, collection = str(place).rpartition("/")
    if server.endswith(("http:/", "https:/")) or not collection:
        raise BadInput(f"{place}: expected http://host:port/collection, got no collection")
    key = (options or {}).get("api_key") or os.environ.get("QDRANT_API_KEY")
    return QdrantClient(url=server, api_key=key, check_compatibility=False), collection


ENGINES.register("flat", Flat())
ENGINES.register("lance", Lance())
ENGINES.register("qdrant", Qdrant())

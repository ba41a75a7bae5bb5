"""A collection on the disk: what its file says, and what else lies in its folder.

<name>/collection.json    its engine, its model's space and width; names the index, so that writing it anew swaps that
<name>/index/             the engine's own, where it is not in a store elsewhere; `index-*` after `vlm reindex`
<name>/media/             small pictures, originals, clips, frames' vectors
<name>/spare              places of a store's indexes, the old and the new, while `vlm reindex` makes one of the other
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Literal

from pydantic import Field

from vlm.config import Config, parse
from vlm.files import atomic_write, read_json
from vlm.index import drop_index, there

ABOUT, SPARE = "collection.json", "spare"


class About(Config):
    """What `collection.json` says."""

    kind: Literal["vlm-collection"] = "vlm-collection"
    version: Literal[1] = 1
    engine: str
    model: str
    width: int
    place: str | None = None
    """In a store elsewhere."""
    index: str = Field(default="index", pattern=r"^index(-[0-9a-f]+)?$")
    """The folder of the index, where it is not elsewhere."""

    def at(self, folder: Path) -> str | Path:
        """Where the index is."""
        return self.place or folder / self.index

    def anew(self, folder: Path, model: str, width: int) -> About:
        """Of another model, beside it."""
        tag = uuid.uuid4().hex[:12]
        if self.place is None:
            return self.model_copy(update={"model": model, "width": width, "index": f"index-{tag}"})
        new = f"{self.place.rpartition('/')[0]}/{folder.name}-{tag}"
        atomic_write(folder / SPARE, f"{self.place}\n{new}\n")
        return self.model_copy(update={"model": model, "width": width, "place": new})

    def write(self, folder: Path) -> None:
        """Whole or not at all."""
        plain = {"index"} if self.index == "index" else None
        atomic_write(folder / ABOUT, self.model_dump_json(indent=1, exclude=plain))


def read_about(folder: Path) -> About:
    """Raises `BadInput` for a folder that is no collection."""
    path = folder / ABOUT
    return parse(About, read_json(path), str(path))


def sweep(folder: Path, about: About) -> None:
    """Remove indexes that `collection.json` does not name, which a kill can leave. Raises `VlmError` of a store."""
    for left in folder.glob("index*"):
        if about.place is not None or left.name != about.index:
            shutil.rmtree(left, ignore_errors=True)
    for half in folder.glob(".*"):  # half written
        half.unlink(missing_ok=True)
    spare = folder / SPARE
    if spare.is_file():
        for place in spare.read_text(encoding="utf-8").splitlines():
            if place != about.place and there(place):
                drop_index(place)
        spare.unlink()

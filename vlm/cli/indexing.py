"""An index brought up to date with a folder: what is new is embedded, what has gone is removed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlm.cli.output import working
from vlm.cli.session import BATCH, open_input
from vlm.errors import BadInput
from vlm.index.base import Vectors
from vlm.index.flat import MANIFEST, FlatIndex
from vlm.vision.images import list_media

if TYPE_CHECKING:
    from vlm.heads.media import Media, Skipped
    from vlm.video.sampling.base import Sampler

COMMIT_SECONDS = 60.0
"""Between two commits of a long run: what a kill can cost."""


@dataclass(frozen=True)
class Synced:
    """`indexed` files of the folder are in the index now; `embedded` of them went through the model."""

    indexed: int
    embedded: int
    removed: int
    skipped: list[Skipped]


def sync(
    directory: Path,
    to: Path,
    space: tuple[str, int],
    embed: Callable[[Sequence[Media]], Vectors],
    sampling: Callable[[], Sampler] | None = None,
) -> Synced:
    """Bring the index at `to` up to date with the pictures and videos under `directory`.

    Ids are absolute paths. A file whose content (sha256) is known is not embedded again, wherever it lay; files of
    the folder that have gone or can no longer be read are removed; entries of other folders stay. Raises `BadInput`
    for a folder without pictures, and for an index that is another model's or damaged.
    """
    from vlm.heads.media import Skipped

    directory = directory.resolve()
    files = [str(path) for path in list_media(directory)]
    name, width = space
    known = (to / MANIFEST).is_file()
    index = FlatIndex.open(to, model=name, width=width) if known else FlatIndex.create(to, width, name)
    same = {index.metadata(id)["sha256"]: index.vector(id) for id in index}
    here = set(files)
    removed = index.delete([id for id in index if id not in here and Path(id).is_relative_to(directory)])
    skipped: list[Skipped] = []
    indexed = embedded = 0
    changed = removed > 0
    committed = time.monotonic()
    with working("index", len(files)) as advance:
        for start in range(0, len(files), BATCH):
            ids, hashes, media = [], [], []
            for path in files[start : start + BATCH]:
                try:
                    sha256 = _sha256(path)
                    if sha256 not in same:
                        media.append(open_input(path, sampling=sampling))
                        ids.append(path)
                        hashes.append(sha256)
                    elif path not in index or index.metadata(path)["sha256"] != sha256:
                        index.upsert([path], same[sha256][None], [{"sha256": sha256}])
                        changed = True
                    indexed += 1
                except (BadInput, OSError) as error:
                    skipped.append(Skipped(path, str(error)))
                    changed |= index.delete([path]) > 0
            if media:
                vectors = embed(media)
                index.upsert(ids, vectors, [{"sha256": sha256} for sha256 in hashes])
                same |= zip(hashes, vectors, strict=True)
                embedded += len(media)
                changed = True
            if changed and time.monotonic() - committed > COMMIT_SECONDS:
                index.commit()
                committed = time.monotonic()
            advance(min(start + BATCH, len(files)), "")
    if changed:
        index.commit()
    return Synced(indexed, embedded, removed, skipped)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()

"""An item's content: its hash, and its pictures where the hash is new."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlm.datasets.readers.lazy_media import LazyMedia
from vlm.errors import BadInput
from vlm.files import name_text
from vlm.ingest.item import Item
from vlm.media.kinds import HEAD_BYTES, is_video, kind_of
from vlm.media.open import Media, open_media
from vlm.media.urls import fetch_url, is_url
from vlm.media.video.sampling.base import Sampler


@dataclass(frozen=True)
class Read:
    """`media` where the content was not known, `problem` where it cannot be read."""

    item: Item
    stamp: str
    sha256: str = ""
    media: Media | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()
    """What was changed to show it: a frame chosen, colours mapped."""


def fetched(item: Item) -> Item:
    """With its bytes, where they lie inside a file. Raises `BadInput`."""
    return replace(item, place=item.place.read()) if isinstance(item.place, LazyMedia) else item


def stamp_of(item: Item) -> str:
    """What changes when the item does; nothing where that cannot be told. A URL that is known is not fetched again."""
    if isinstance(item.place, LazyMedia):
        return ""
    if isinstance(item.place, bytes):
        return hashlib.sha256(item.place).hexdigest()[:16]
    if is_url(item.place):
        return "url"
    try:
        status = os.stat(item.place)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def read(
    item: Item,
    stamp: str,
    known: Mapping[str, str],
    *,
    sampling: Callable[[], Sampler] | None = None,
    offline: bool = False,
) -> Read:
    """Hash the item, and decode it unless its hash is `known`."""
    if item.problem:
        return Read(item, stamp, problem=item.problem)
    try:
        item = fetched(item)
        if isinstance(item.place, bytes):
            content = item.place
        elif is_url(str(item.place)):
            if offline:
                raise BadInput(f"{item.id}: expected a file, got a URL while the network is off")
            content = fetch_url(str(item.place))
        else:
            return _of_file(item, stamp, known, sampling)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in known:
            return Read(item, stamp, sha256)
        kind = kind_of(content[:HEAD_BYTES])
        clip = kind is not None and kind.medium == "video"
        media = open_media(content, sampling() if sampling is not None and clip else None, name=item.id)
        return _decoded(item, stamp, sha256, media)
    except BadInput as error:
        return Read(item, stamp, problem=str(error))


def _decoded(item: Item, stamp: str, sha256: str, media: Media) -> Read:
    return Read(item, stamp, sha256, media, notes=media.notes)


def _of_file(item: Item, stamp: str, known: Mapping[str, str], sampling: Callable[[], Sampler] | None) -> Read:
    path = str(item.place)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as content:
            while block := content.read(2**20):
                digest.update(block)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(
            f"{name_text(path):.200}: expected a picture or clip, got no file that can be read ({reason})"
        ) from None
    sha256 = digest.hexdigest()
    return Read(item, stamp, sha256) if sha256 in known else _decoded(item, stamp, sha256, _opened(path, sampling))


def _opened(path: str, sampling: Callable[[], Sampler] | None) -> Media:
    return open_media(Path(path), sampling() if sampling is not None and is_video(path) else None)

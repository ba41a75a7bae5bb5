"""An item as a part of a request: the file that is sent, or the URL that the server fetches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from vlm.errors import BadInput
from vlm.files import name_text
from vlm.ingest.item import Item
from vlm.ingest.reading import fetched
from vlm.media.kinds import HEAD_BYTES, Kind, kind_of, kind_of_name
from vlm.media.urls import fetch_url, is_url

IN_MEMORY = 8 * 2**20
"""Larger files are read again while they are sent."""
BLOCK = 2**20


@dataclass(frozen=True)
class Limits:
    """What a server takes, as `GET /v1/limits` tells it; sizes in bytes."""

    batch: int
    top: int
    body_bytes: int
    json_bytes: int
    image_bytes: int
    video_bytes: int
    metadata_bytes: int
    urls: bool

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Limits:
        """Of an answer, which may tell more."""
        return cls(**{name: told[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Part:
    """`url` or `content`."""

    id: str
    url: str = ""
    sha256: str = ""
    """Of the content; not known of what the server fetches."""
    content: bytes | Path = b""
    size: int = 0
    name: str = ""
    mime: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def part_of(item: Item, limits: Limits, *, offline: bool = False) -> Part:
    """Raises `BadInput` for what cannot be read, or is larger than the server takes."""
    item = fetched(item)
    if isinstance(item.place, bytes):
        return _of_bytes(item, item.place, item.id.rpartition("#")[2], limits)
    if is_url(item.place):
        url = str(item.place)
        if offline:
            raise BadInput(f"{item.id}: expected a file, got a URL while the network is off")
        if limits.urls:
            return Part(item.id, url=url)
        return _of_bytes(item, fetch_url(url, max_bytes=limits.image_bytes), urlsplit(url).path, limits)
    return _of_file(item, Path(str(item.place)), limits)


def _of_bytes(item: Item, content: bytes, name: str, limits: Limits) -> Part:
    kind = _checked(item.id, content[:HEAD_BYTES], name, len(content), limits)
    sent, mime = _named(name, kind)
    return Part(item.id, "", hashlib.sha256(content).hexdigest(), content, len(content), sent, mime)


def _of_file(item: Item, path: Path, limits: Limits) -> Part:
    digest, whole = hashlib.sha256(), b""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEAD_BYTES)
            kind = _checked(item.id, head, path.name, size, limits)
            file.seek(0)
            if size <= IN_MEMORY:
                whole = file.read(IN_MEMORY + 1)
                size = len(whole)
                digest.update(whole)
            else:
                while block := file.read(BLOCK):
                    digest.update(block)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        got = f"no file that can be read ({reason})"
        raise BadInput(f"{name_text(path)}: expected a picture or clip, got {got}") from None
    name, mime = _named(name_text(path.name), kind)
    return Part(item.id, "", digest.hexdigest(), whole or path, size, name, mime)


def _checked(id: str, head: bytes, name: str, size: int, limits: Limits) -> Kind | None:
    """What the content is. Raises `BadInput` for what would be refused once it was sent."""
    kind = kind_of(head, name) or kind_of_name(name)
    clip = kind is not None and kind.medium == "video"
    most = limits.video_bytes if clip else limits.image_bytes
    most = min(most, limits.body_bytes - 2**16)  # the rest of the form
    if not size:
        raise BadInput(f"{id}: expected a picture or clip, got nothing")
    if size > most:
        raise BadInput(f"{id}: expected at most {most} bytes, which is what the server takes, got {size}")
    return kind


def _named(name: str, kind: Kind | None) -> tuple[str, str]:
    """A file name whose suffix says what the content is, as the server goes by it, and a content type."""
    name = PurePosixPath(name).name[-200:] or "item"
    if kind is None or kind.medium is None or not kind.suffixes:
        return name, "application/octet-stream"
    said = kind_of_name(name)
    if said is None or (said.medium != kind.medium):
        name += kind.suffixes[0]
    return name, f"{kind.medium}/{kind.suffixes[0].removeprefix('.')}"

"""A picture or clip of a collection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vlm.datasets.readers.lazy_media import LazyMedia


@dataclass(frozen=True)
class Item:
    """A picture or clip: the path, the URL or the bytes it is read from, or where those lie inside a file."""

    id: str
    """A text; a path that is none is written as `vlm.files.name_text` does."""
    place: str | bytes | LazyMedia
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the source says of it, JSON."""
    suffix: str = ""
    """Of bytes: `.mp4` of a clip, nothing of a picture."""
    problem: str = ""
    """Why the source's record cannot be used; there is no place then."""

"""What an item was made of: a text, a file that was kept, or one below a folder of media that is still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vlm.errors import BadInput
from vlm.index.base import Metadata
from vlm.server.http.errors import ApiError
from vlm.server.http.sources import CHUNK, found_below
from vlm.server.retrieval.collection import MEDIA, SHA256
from vlm.server.retrieval.media import Media


class Originals:
    """Of a collection. `roots`, which are resolved, are where files that were named may be."""

    def __init__(self, media: Media, roots: Sequence[Path]) -> None:
        self._media, self._roots = media, roots

    def of(self, id: str, metadata: Metadata) -> str | Path:
        """The text, or the picture's or clip's file. Raises `BadInput` with the reason where there is none."""
        kind, key = metadata.get("_kind"), metadata.get(MEDIA)
        if kind == "text" and isinstance(text := metadata.get("_text"), str):
            return text
        if kind not in ("image", "video"):
            raise BadInput("a vector without what it was made of")
        if isinstance(key, str):
            kept = self._media.clip(key) if kind == "video" else self._media.original(key)
            if kept is not None:
                return kept
        if isinstance(name := metadata.get("_path"), str):
            return self._named(name, str(metadata.get(SHA256, id)))
        if kind == "video":
            raise BadInput("its clip has gone")
        raise BadInput("its picture was not kept as it came (vlm serve retrieval --keep-originals)")

    def _named(self, name: str, sha256: str) -> Path:
        """`sha256` is the content's, or an id that begins it."""
        if not self._roots:
            raise BadInput("its file was named by a path; expected --media DIR")
        try:
            path = found_below(self._roots, name)
            same = path.is_file() and _sha256(path)[:32] == sha256[:32]
        except (ApiError, OSError):
            raise BadInput("its file has gone from below --media") from None
        if not same:
            raise BadInput("its file below --media is another one")
        return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

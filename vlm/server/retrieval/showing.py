"""What is shown of an entry: what a collection keeps of it, or of an index that was opened the file itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi.responses import FileResponse, Response

from vlm.errors import BadInput
from vlm.server.http.errors import ApiError
from vlm.server.http.sources import ClipFile
from vlm.server.retrieval.collection import MEDIA
from vlm.server.retrieval.media import Media
from vlm.server.retrieval.opened import Opened
from vlm.server.retrieval.reading import Held
from vlm.server.retrieval.service import Service

VIDEO_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime"}
CACHED = {"Cache-Control": "private, max-age=3600"}


async def small(service: Service, collection: Held, id: str) -> Response:
    """A JPEG. Raises `ApiError` 404."""
    if not isinstance(collection, Opened):
        media, key = await _media(collection, id)
        return _file(media.thumbnail(key), "image/jpeg")
    return Response(await jpeg(service, collection, id), media_type="image/jpeg", headers=CACHED)


async def jpeg(service: Service, collection: Held, id: str) -> bytes:
    """Its content. Raises `ApiError` 404."""
    if not isinstance(collection, Opened):
        media, key = await _media(collection, id)
        if (kept := media.thumbnail(key)) is None:
            raise _nothing()
        return await asyncio.to_thread(kept.read_bytes)
    path, medium = await _path(collection, id)
    try:
        clip = ClipFile(path, "", path.name, ours=False)
        source = clip if medium == "video" else await service.sources.path(str(path))
        return await service.decoding.small(source)
    except BadInput:
        raise _nothing() from None


async def clip(service: Service, collection: Held, id: str) -> FileResponse:
    """As it came. Raises `ApiError` 404."""
    if isinstance(collection, Opened):
        path, medium = await _path(collection, id)
        return _clip(path if medium == "video" else None)
    media, key = await _media(collection, id)
    kept = media.clip(key)
    metadata, _ = await collection.entry(id)
    if kept is None and metadata.get("_kind") == "video" and isinstance(given := metadata.get("_path"), str):
        kept = await asyncio.to_thread(service.sources.find, given)
    return _clip(kept)


async def _path(collection: Opened, id: str) -> tuple[Path, str]:
    """The file of an entry that may be shown, and its medium."""
    metadata, _ = await collection.entry(id)
    medium = await asyncio.to_thread(collection.kind, id, metadata)
    path = await asyncio.to_thread(collection.file, id)
    if path is None or medium is None:
        raise _nothing()
    return path, medium


async def _media(collection: Held, id: str) -> tuple[Media, str]:
    key = (await collection.entry(id))[0].get(MEDIA)
    if not isinstance(key, str) or collection.media is None:
        raise _nothing()
    return collection.media, key


def _clip(path: Path | None) -> FileResponse:
    return _file(path, VIDEO_TYPES.get(path.suffix.lower(), "application/octet-stream") if path else "")


def _file(path: Path | None, kind: str) -> FileResponse:
    if path is None:
        raise _nothing()
    return FileResponse(path, media_type=kind, headers=CACHED)


def _nothing() -> ApiError:
    return ApiError(404, "media_not_found", "nothing to show of this item")

"""Items on their way into a collection: each is taken or refused by itself, and what is taken is durable."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from vlm.errors import BadInput
from vlm.index.base import Vectors
from vlm.server.embedding.queued import Embedded
from vlm.server.http.errors import ApiError, of_input, told
from vlm.server.http.forms import kind_of_body, read_form
from vlm.server.http.schemas import Failure, size_of
from vlm.server.http.sources import ClipFile, PictureBytes, Source
from vlm.server.retrieval.collection import MEDIA, SHA256, Collection
from vlm.server.retrieval.schemas import Id, Item, Items, ItemStatus, OneOrMany
from vlm.server.retrieval.service import Service

ITEMS: TypeAdapter[Item | Items] = TypeAdapter(OneOrMany)
ID: TypeAdapter[str] = TypeAdapter(Id)
FIELDS = ("metadata", "id")
"""Of a form, beside its files."""


@dataclass(frozen=True)
class Upload:
    """A file of a form."""

    file: UploadFile
    id: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    id: str
    vector: Vectors
    metadata: dict[str, Any]


async def read_items(request: Request, batch: int) -> Sequence[Item | Upload]:
    """What a request holds, files or JSON, at most `batch`. Raises `ApiError` for what cannot be read."""
    kind = kind_of_body(request)
    if kind == "multipart/form-data":
        return _uploads(await read_form(request, batch, 2 * batch + 1))
    if kind not in ("application/json", ""):
        raise ApiError(415, "unsupported", "expected multipart/form-data or application/json")
    body = await request.body()
    try:
        found = await asyncio.to_thread(ITEMS.validate_json, body)
    except ValidationError as error:
        raise ApiError(422, "invalid", told(error.errors(include_input=False, include_url=False))) from None
    items = found.items if isinstance(found, Items) else [found]
    if len(items) > batch:
        raise ApiError(413, "too_large", f"expected at most {batch} items, got {len(items)}")
    return items


async def add(service: Service, collection: Collection, items: Sequence[Item | Upload]) -> list[ItemStatus]:
    """What became of each. Raises the one item's error where there is only one."""
    model = service.model_of(collection)
    model.admit(sum(isinstance(item, Upload) or (item.text is None and item.vector is None) for item in items))
    prepared = await asyncio.gather(*(_prepared(service, collection, item) for item in items), return_exceptions=True)
    entries: dict[str, Entry] = {}
    statuses: list[ItemStatus] = []
    for item, found in zip(items, prepared, strict=True):
        if isinstance(found, Entry):
            if found.id in entries:  # the last of the same id counts
                collection.media.forget(filter(None, [entries[found.id].metadata.get(MEDIA)]))
            entries[found.id] = found
            statuses.append(ItemStatus(id=found.id, status="added"))
            continue
        error = of_input(found) if isinstance(found, BadInput) else found
        if not isinstance(error, ApiError) or len(items) == 1:
            collection.media.forget(key for entry in entries.values() if (key := entry.metadata.get(MEDIA)))
            raise error
        statuses.append(ItemStatus(id=item.id, status="refused", error=Failure(**error.body())))
    if entries:
        kept = list(entries.values())
        rows = np.stack([entry.vector for entry in kept])
        known = await collection.upsert([entry.id for entry in kept], rows, [entry.metadata for entry in kept])
        replaced = {entry.id for entry, was in zip(kept, known, strict=True) if was}
        for status in statuses:
            if status.status == "added" and status.id in replaced:
                status.status = "replaced"
    return statuses


async def _prepared(service: Service, collection: Collection, item: Item | Upload) -> Entry:
    check_metadata(item.metadata, service.limits.metadata_bytes)
    model = service.model_of(collection)
    if isinstance(item, Item) and item.vector is not None:
        vector = model.vector(item.vector)
        return _entry(item, hashlib.sha256(vector.tobytes()).hexdigest(), Embedded(vector), {"_kind": "vector"})
    if isinstance(item, Item) and item.text is not None:
        embedded = Embedded((await model.texts([item.text], patient=True))[0])
        shown = {"_kind": "text", "_text": item.text}
        return _entry(item, hashlib.sha256(item.text.encode()).hexdigest(), embedded, shown)
    async with model.turn():
        return await _seen(service, collection, item)


async def _seen(service: Service, collection: Collection, item: Item | Upload) -> Entry:
    """A picture or clip as an entry, with what is shown of it kept."""
    source, model = await _source(service, item), service.model_of(collection)
    about: dict[str, Any] = {"_kind": "video" if isinstance(source, ClipFile) else "image"}
    about |= {"_name": source.name} if source.name else {}
    try:
        if isinstance(source, ClipFile):
            embedded = await model.clip(source, patient=True, shown=True)
            about |= {"_duration": embedded.frames.duration} if embedded.frames else {}
        else:
            embedded = await model.picture(source, patient=True, shown=True)
        if not source.ours:
            about |= {"_path": source.name, SHA256: source.sha256}
        clip = source.path if isinstance(source, ClipFile) and source.ours else None
        wanted = service.settings.originals and source.ours
        original = source.content if wanted and isinstance(source, PictureBytes) else None
        keep = partial(collection.media.keep, embedded.thumbnail, clip, embedded.frames, original)
        about[MEDIA] = await asyncio.to_thread(keep)
    finally:
        if isinstance(source, ClipFile):
            source.discard()
    return _entry(item, source.sha256, embedded, about)


async def _source(service: Service, item: Item | Upload) -> Source:
    sources = service.sources
    if isinstance(item, Upload):
        return await sources.upload(item.file)
    if item.path is not None:
        return await sources.path(item.path)
    if item.url is not None:
        return await sources.url(item.url)
    text = item.image if item.image is not None else item.video
    assert text is not None
    return await asyncio.to_thread(sources.base64, text, video=item.image is None)


def _entry(item: Item | Upload, sha256: str, embedded: Embedded, about: dict[str, Any]) -> Entry:
    return Entry(item.id or sha256[:32], embedded.vector, {**item.metadata, **about})


def check_metadata(metadata: dict[str, Any], most: int) -> None:
    """Raises `ApiError` for what is no JSON, is too long, or has the server's keys."""
    try:
        size = size_of(metadata)
    except ValueError as error:
        raise ApiError(422, "invalid", f"metadata: {error}") from None
    if size > most:
        raise ApiError(413, "too_large", f"metadata: expected at most {most} bytes of JSON, got {size}")
    if any(key.startswith("_") for key in metadata):
        raise ApiError(422, "invalid", "metadata: keys that begin with _ are the server's")


def _uploads(form: FormData) -> list[Upload]:
    """A form's files. `metadata` is an object for all of them or a list of one each; `id` is there as often, or not."""
    fields = form.multi_items()
    files = [value for key, value in fields if isinstance(value, UploadFile)]
    if mistaken := [key for key, value in fields if key in FIELDS and isinstance(value, UploadFile)]:
        raise ApiError(422, "invalid", f"{mistaken[0]}: expected a field, got a file")
    if unknown := sorted({key for key, value in fields if isinstance(value, str)} - set(FIELDS)):
        raise ApiError(422, "invalid", f"{unknown[0][:80]}: expected files, and the fields metadata and id")
    if not files:
        raise ApiError(422, "invalid", "expected at least one file")
    if len(form.getlist("metadata")) > 1:
        raise ApiError(422, "invalid", "metadata: expected it once, an object or a list of one for each file")
    ids = [value for key, value in fields if key == "id" and isinstance(value, str)]
    if ids and len(ids) != len(files):
        raise ApiError(422, "invalid", f"id: expected one for each of {len(files)} files, got {len(ids)}")
    try:
        ids = [ID.validate_python(id) for id in ids]
        text = form.get("metadata")
        metadata = json.loads(text) if isinstance(text, str) else {}
    except ValidationError as error:
        raise ApiError(422, "invalid", "id: " + told(error.errors()).removeprefix("body: ")) from None
    except (ValueError, RecursionError):
        raise ApiError(422, "invalid", "metadata: expected JSON") from None
    rows = metadata if isinstance(metadata, list) else [metadata] * len(files)
    if len(rows) != len(files) or not all(isinstance(row, dict) for row in rows):
        raise ApiError(422, "invalid", f"metadata: expected an object, or a list of {len(files)} objects")
    names: Sequence[str | None] = ids or [None] * len(files)
    return [Upload(file, id, row) for file, id, row in zip(files, names, rows, strict=True)]

"""Searches of a collection: queries to vectors, vectors to hits, and of clips the moment. Q queries, F frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from vlm.errors import BadInput
from vlm.index.base import Hit, Vectors
from vlm.server.embedding.queued import vector_of
from vlm.server.http.errors import ApiError
from vlm.server.retrieval.collection import MEDIA, SHA256
from vlm.server.retrieval.reading import Readable
from vlm.server.retrieval.schemas import HitAnswer, Hits, Moment, Options, Query
from vlm.server.retrieval.service import Service
from vlm.vectors import composed


async def search(service: Service, collection: Readable, queries: Sequence[Query], options: Options) -> list[Hits]:
    """The hits of each query. Raises `ApiError` for what is over a limit, and for the first query that is no good."""
    limits = service.limits
    if len(queries) > limits.batch:
        raise ApiError(413, "too_large", f"queries: expected at most {limits.batch}, got {len(queries)}")
    wanted = options.top + options.offset
    if wanted > limits.top:
        raise ApiError(422, "invalid", f"top: expected at most {limits.top} with offset, got {wanted}")
    vectors = np.stack(await asyncio.gather(*(_vector(service, collection, query) for query in queries)))
    more = any(query.id is not None for query in queries)  # an item is not like itself

    def answers(found: list[list[Hit]], vector_of_id: Callable[[str], Vectors]) -> list[Hits]:
        pages = []
        for query, hits in zip(queries, found, strict=True):
            others = [hit for hit in hits if hit.id != query.id]
            pages.append(others[options.offset : wanted])
        given = vector_of_id if options.vectors else None
        return [
            Hits(hits=[_answer(collection, vector, hit, given) for hit in hits])
            for vector, hits in zip(vectors, pages, strict=True)
        ]

    words = _words(queries) if options.hybrid else None
    try:
        return await collection.search(vectors, wanted + more, options.filter, options.min_score, answers, words)
    except BadInput as error:
        raise ApiError(422, "invalid", str(error)) from None
    except RecursionError:
        raise ApiError(422, "invalid", "filter: expected less depth") from None


async def _vector(service: Service, collection: Readable, query: Query) -> Vectors:
    if query.text is not None and query.image is not None:
        weight = 0.5 if query.weight is None else query.weight
        parts = (query.model_copy(update={"text": None}), query.model_copy(update={"image": None}))
        both = await asyncio.gather(*(_vector(service, collection, part) for part in parts))
        return composed(both, [1 - weight, weight])
    if query.text is not None:
        return (await service.model_of(collection).texts([query.text]))[0]
    if query.vector is not None:
        return service.model_of(collection).vector(query.vector)
    if query.id is not None:
        return (await collection.entry(query.id))[1]
    text = query.image if query.image is not None else query.video
    assert text is not None
    source = await asyncio.to_thread(service.sources.base64, text, video=query.image is None)
    return await vector_of(service.model_of(collection), source)


def _words(queries: Sequence[Query]) -> list[str]:
    """What is looked for by words too. Raises `ApiError` for a query without any."""
    if any(query.text is None for query in queries):
        raise ApiError(422, "invalid", "hybrid: expected queries with a text")
    return [query.text or "" for query in queries]


def _answer(
    collection: Readable, vector_D: Vectors, hit: Hit, vector_of_id: Callable[[str], Vectors] | None
) -> HitAnswer:
    found = None
    if vector_of_id is not None:
        with suppress(KeyError):  # deleted meanwhile
            found = vector_of_id(hit.id).tolist()
    moment = _moment(collection, vector_D, hit)
    return HitAnswer(id=hit.id, score=hit.score, metadata=public(hit.metadata), moment=moment, vector=found)


def public(metadata: object) -> dict:
    """Without what is nobody's business."""
    assert isinstance(metadata, dict)
    return {key: value for key, value in metadata.items() if key not in (MEDIA, SHA256)}


def _moment(collection: Readable, vector_D: Vectors, hit: Hit) -> Moment | None:
    """The stretch of a clip whose frames are nearest to the query."""
    if hit.metadata.get("_kind") != "video" or not isinstance(key := hit.metadata.get(MEDIA), str):
        return None
    frames = collection.media.frames(key) if collection.media is not None else None
    if frames is None:  # deleted meanwhile
        return None
    from vlm.heads.moments import moments

    start, end, _ = moments(frames.vectors @ vector_D, frames.times, frames.duration, most=1)[0]
    return Moment(start=start, end=end)

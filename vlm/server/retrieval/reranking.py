"""The best of a search by words, looked at again by the language model: `vlm.heads.matching` reads every word."""

from __future__ import annotations

import asyncio

from vlm.server.http.errors import ApiError
from vlm.server.retrieval import showing
from vlm.server.retrieval.reading import Held
from vlm.server.retrieval.schemas import HitAnswer, Hits, Search
from vlm.server.retrieval.searching import search
from vlm.server.retrieval.service import Service


async def reranked(service: Service, collection: Held, asked: Search, count: int) -> Hits:
    """The best `count` in the order of how well they fit the words; those without a picture, and the others, follow.

    Raises `ApiError` for what is over a limit, and `Incapable` of a model that does not write.
    """
    most = min(service.limits.rerank, service.limits.top)
    if count > most:
        raise ApiError(422, "invalid", f"rerank: expected at most {most}, got {count}")
    wanted = asked.top + asked.offset
    first = asked.model_copy(update={"top": max(count, wanted), "offset": 0})
    hits = (await search(service, collection, [first], first))[0].hits
    pictures = await asyncio.gather(*(_picture(service, collection, hit) for hit in hits[:count]))
    seen = [(hit, picture) for hit, picture in zip(hits, pictures, strict=False) if picture is not None]
    found = await service.model_of(collection).match([each for _, each in seen], asked.text or "")
    for (hit, _), fits in zip(seen, found, strict=True):
        hit.match = fits
    best = sorted((hit for hit, _ in seen), key=lambda hit: -(hit.match or 0.0))
    return Hits(hits=[*best, *(hit for hit in hits if hit.match is None)][asked.offset : wanted])


async def _picture(service: Service, collection: Held, hit: HitAnswer) -> bytes | None:
    try:
        return await showing.jpeg(service, collection, hit.id)
    except ApiError:  # a text or a vector, or gone meanwhile
        return None

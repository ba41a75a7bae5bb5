"""What `/v1/embeddings` gives: OpenAI's request, with pictures among the inputs. N inputs, D width."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator

import numpy as np

from vlm.errors import BadInput, Incapable
from vlm.index.base import Vectors
from vlm.media.urls import is_url
from vlm.server.embedding.queued import QueuedModel, vector_of
from vlm.server.embedding.schemas import Embeddings, ImageUrl, InputPart
from vlm.server.embedding.service import Embedding
from vlm.server.http.errors import ApiError
from vlm.vectors import shortened


async def embeddings(service: Embedding, request: Embeddings) -> tuple[Vectors, int, str]:
    """float32 `[N, D]` of unit length, with `dimensions` the first of them brought to length 1 again; the tokens that
    were read, and the model's name. Raises `Incapable` where no model of the server embeds."""
    try:
        model = service.models.named(request.model)
    except Incapable:
        raise
    except BadInput as error:  # 404 as OpenAI's
        raise ApiError(404, "model_not_found", str(error)) from None
    embedder, inputs = model.embedder, request.input if isinstance(request.input, list) else [request.input]
    if len(inputs) > service.limits.inputs:
        raise ApiError(413, "too_large", f"input: expected at most {service.limits.inputs}, got {len(inputs)}")
    if request.dimensions is not None and request.dimensions > embedder.width:
        raise ApiError(422, "invalid", f"dimensions: expected at most {embedder.width}, got {request.dimensions}")
    rows: list[Vectors] = []
    step = service.limits.batch
    for start in range(0, len(inputs), step):  # what is asked for at once holds up nobody else for longer than this
        coming = (_vector(service, model, given, patient=len(inputs) > step) for given in inputs[start : start + step])
        rows += await asyncio.gather(*coming)
    rows_ND = np.stack(rows)
    texts = [text for given in inputs if (text := _text(given)) is not None]
    tokens = await asyncio.to_thread(embedder.count_tokens, texts) if texts else 0
    return shortened(rows_ND, request.dimensions), tokens, embedder.name


def written(rows_ND: Vectors, tokens: int, model: str, form: str) -> Iterator[str]:
    """An `EmbeddingsAnswer` in JSON, in pieces: all rows as Python's numbers would take ten times the room."""
    yield '{"object":"list","data":['
    for index, row_D in enumerate(rows_ND):
        value = row_D.tolist() if form == "float" else base64.b64encode(np.asarray(row_D, "<f4").tobytes()).decode()
        comma = "," if index else ""
        yield comma + json.dumps({"object": "embedding", "index": index, "embedding": value}, separators=(",", ":"))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    yield f'],"model":{json.dumps(model)},"usage":{json.dumps(usage)}}}'


def _text(given: str | InputPart) -> str | None:
    return given if isinstance(given, str) else given.text


async def _vector(service: Embedding, model: QueuedModel, given: str | InputPart, *, patient: bool) -> Vectors:
    if (text := _text(given)) is not None:
        return (await model.texts([text], patient=patient))[0]
    assert isinstance(given, InputPart)
    address = given.image_url.url if isinstance(given.image_url, ImageUrl) else given.image_url
    if address is not None and is_url(address):
        return await vector_of(model, await service.sources.url(address))
    encoded = given.image if given.image is not None else address
    assert encoded is not None
    return await vector_of(model, await asyncio.to_thread(service.sources.base64, encoded, video=False))

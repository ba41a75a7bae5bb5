"""The route of any server that gives vectors."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPBearer

from vlm.server.embedding.embeddings import embeddings, written
from vlm.server.embedding.schemas import Embeddings, EmbeddingsAnswer
from vlm.server.embedding.service import Embedding
from vlm.server.http.addresses import API
from vlm.server.http.state import ERRORS, ready

embedding = APIRouter(prefix=f"/{API}", responses=ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])


def service(request: Request) -> Embedding:
    return ready(request.app, Embedding)


@embedding.post("/embeddings", response_model=EmbeddingsAnswer)
async def create_embeddings(served: Annotated[Embedding, Depends(service)], body: Embeddings) -> Response:
    """As OpenAI's, and for pictures too."""
    rows_ND, tokens, model = await embeddings(served, body)
    pieces = written(rows_ND, tokens, model, body.encoding_format)
    return StreamingResponse(pieces, media_type="application/json")

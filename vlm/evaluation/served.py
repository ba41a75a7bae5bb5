"""A server of the retrieval API as the model under test: it makes the vectors, and its index does the comparing.

Q queries, C candidates, F frames, D width.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import numpy as np
from PIL import Image

from vlm.conversation.texts import check_texts
from vlm.errors import BadInput, VlmError
from vlm.evaluation.endpoint.wire import png
from vlm.facade import Model
from vlm.media.open import Media
from vlm.remote import KEY, Server
from vlm.vectors import Vectors

BATCH, TOP = 64, 1000
"""What a server takes and gives at most in one request: its default limits."""
CAN = frozenset({"embeds"})
"""Known before anything is asked of it."""
__all__ = ["CAN", "KEY", "ServedModel"]


class ServedModel(Model):
    """What the harness asks of a model, asked over HTTP. It embeds and searches, and writes nothing."""

    def __init__(self, url: str, client: httpx.Client | None = None):
        """Raises `BadInput` where nothing answers at `url`, or not as a server of the retrieval API does."""
        self.server = EmbeddingServer(url, client)
        probe = self.server.embedded([{"image": png(_pattern())}, {"text": "a dog runs through snow"}])
        self._seen = np.round(probe, 3) + 0.0  # no two kinds of zero
        super().__init__(
            self.server.model, f"a server of the retrieval API at {url}", embedder=ServedEmbedder(self.server)
        )

    @property
    def can(self) -> frozenset[str]:
        return CAN

    def weights_hash(self) -> str:
        """sha256 of what the server makes of a fixed picture and text, to three decimals: its weights stay unknown."""
        return hashlib.sha256(self._seen.astype("<f4").tobytes()).hexdigest()

    def similarities(
        self, queries_QD: Vectors, candidates_CD: Vectors, progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[Vectors]:
        """What the searches of a collection that holds the candidates score them, `[B, C]` for the next B queries.

        The collection is made for this and deleted afterwards. Raises `VlmError` where a search leaves some out.
        """
        place = f"/v1/collections/eval-{uuid.uuid4().hex}"
        self.server.ask("POST", "/v1/collections", {"name": place.rpartition("/")[2]})
        try:
            for start in range(0, len(candidates_CD), BATCH):
                rows = enumerate(candidates_CD[start : start + BATCH].tolist(), start)
                # A search gives no more than TOP hits, so it looks at no more candidates.
                items = [{"id": str(n), "vector": row, "metadata": {"part": n // TOP}} for n, row in rows]
                self.server.ask("POST", f"{place}/items", {"items": items})
            for start in range(0, len(queries_QD), BATCH):
                queries = [{"vector": row} for row in queries_QD[start : start + BATCH].tolist()]
                yield self._scores(place, queries, len(candidates_CD))
        finally:
            self.server.ask("DELETE", place)

    def _scores(self, place: str, queries: list[dict[str, Any]], candidates: int) -> Vectors:
        scores_BC = np.full((len(queries), candidates), np.nan, np.float32)
        for part in range(-(-candidates // TOP)):
            asked = {"queries": queries, "top": TOP, "filter": {"part": part}}
            results = self.server.ask("POST", f"{place}/search", asked)["results"]
            for row_C, result in zip(scores_BC, results, strict=True):
                row_C[[int(hit["id"]) for hit in result["hits"]]] = [hit["score"] for hit in result["hits"]]
        if missing := int(np.isnan(scores_BC).sum()):
            raise VlmError(
                f"{self.server.url}: {missing} of {scores_BC.size} scores are missing from what searches gave"
            )
        return scores_BC


class ServedEmbedder:
    """Vectors that a server makes. Clips are sent as frames, of which the vector is the mean."""

    def __init__(self, server: EmbeddingServer):
        self.server = server

    @property
    def scale(self) -> float:
        """Raises `BadInput`: the API does not tell it."""
        raise BadInput(f"{self.server.url}: does not tell how similarities are scaled; expected benchmarks of kind "
                       "retrieval or moments")  # fmt: skip

    def embed_media(self, media: Sequence[Media], *, batch: int = 16) -> Vectors:
        rows = []
        for item in media:
            frames_FD = self.server.embedded([{"image": png(frame)} for frame in item.frames])
            rows.append(frames_FD[0] if len(frames_FD) == 1 else _mean(frames_FD))
        return np.stack(rows)

    def embed_texts(self, texts: Sequence[str], *, batch: int = 64) -> Vectors:
        check_texts(texts)
        return self.server.embedded([{"text": text} for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Raises `BadInput`: the API counts those of a whole request."""
        raise BadInput(f"{self.server.url}: does not count the tokens of single texts")

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        """None: what is lost of a text the API does not tell."""
        return [[] for _ in texts]


class EmbeddingServer(Server):
    """One that is asked for vectors."""

    model = ""
    """As it calls itself, once it was asked."""

    def embedded(self, inputs: list[dict[str, str]]) -> Vectors:
        rows = []
        for start in range(0, len(inputs), BATCH):
            asked = {"input": inputs[start : start + BATCH], "encoding_format": "base64"}
            answer = self.ask("POST", "/v1/embeddings", asked)
            self.model = str(answer["model"])
            rows += [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
        return np.stack(rows)


def _pattern() -> Image.Image:
    values = np.arange(32 * 32 * 3).reshape(32, 32, 3)
    return Image.fromarray((values * 7 % 251).astype(np.uint8))


def _mean(frames_FD: Vectors) -> Vectors:
    mean_D = frames_FD.mean(axis=0)
    return mean_D / np.linalg.norm(mean_D)

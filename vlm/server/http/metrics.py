"""What Prometheus is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm.media.process.pictures import PictureDecoder
from vlm.server.http.addresses import canonical
from vlm.server.http.browsers import PAGE
from vlm.server.http.errors import ApiError

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Answered:
    """Of any server; its own registry, so that two servers in a process do not share figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "vlm_requests", "Answers by route, method and status.", ["route", "method", "status"], **of
        )
        self.seconds = Histogram("vlm_request_seconds", "From a request's header to its answer's end.", ["route"], **of)
        self._decoders: list[PictureDecoder] = []
        deaths = Gauge("vlm_decoder_deaths", "Decoding processes that a picture ended.", **of)
        deaths.set_function(lambda: sum(decoder.deaths for decoder in self._decoders))

    def watched(self, decoder: PictureDecoder) -> PictureDecoder:
        """The same, whose deaths are counted."""
        self._decoders.append(decoder)
        return decoder

    def text(self) -> bytes:
        return generate_latest(self.registry)


class EmbeddingMetrics(Answered):
    """Of a server that embeds."""

    def __init__(self) -> None:
        super().__init__()
        of: dict[str, Any] = {"registry": self.registry}
        self.batches = Histogram(
            "vlm_embedding_batch", "Inputs embedded at once.", ["kind", "model"], buckets=(1, 2, 4, 8, 16, 32, 64), **of
        )
        self.waiting = Gauge("vlm_embedding_queue", "Inputs that wait to be embedded.", ["kind", "model"], **of)


class Metrics(EmbeddingMetrics):
    """Of the retrieval server."""

    def __init__(self) -> None:
        super().__init__()
        of: dict[str, Any] = {"registry": self.registry}
        self.commits = Histogram("vlm_commit_seconds", "A durable write, of as many changes as came together.", **of)
        self.changes = Counter("vlm_changes", "Changes that were made durable.", ["collection"], **of)
        self.items = Gauge("vlm_items", "Entries of a collection.", ["collection"], **of)

    def committed(self, collection: str, changes: int, seconds: float) -> None:
        self.commits.observe(seconds)
        self.changes.labels(collection).inc(changes)

    def forget(self, collection: str) -> None:
        """One that is no more; else figures of all that ever were would gather."""
        for figure in (self.changes, self.items):
            figure.remove(collection)


class Measured:
    """Counts and times every answer, by the one of `routes` that it is of."""

    def __init__(
        self, app: ASGIApp, metrics: Answered, routes: Sequence[Route], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app, self.metrics, self.routes, self.clock = app, metrics, routes, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = self.clock(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = label(scope, self.routes)
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(route, method, str(status)).inc()
            self.metrics.seconds.labels(route).observe(self.clock() - began)


def label(scope: Scope, routes: Sequence[Route]) -> str:
    """One of few values, whatever is asked for: the address of a route, its names in braces."""
    if scope["path"].startswith(PAGE):
        return PAGE
    found = "other"
    try:
        scope = canonical(scope)
    except ApiError:  # an address of nothing
        return found
    for route in routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return route.path_format
        if match is Match.PARTIAL:  # another method
            found = route.path_format
    return found

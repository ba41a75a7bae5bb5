"""What Prometheus is told of a chat server."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from vlm.engine.request import Usage
from vlm.server.http.metrics import EmbeddingMetrics


class ChatMetrics(EmbeddingMetrics):
    def __init__(self) -> None:
        super().__init__()
        of: dict[str, Any] = {"registry": self.registry}
        self.running = Gauge("vlm_replies_running", "Requests that the engine has.", **of)
        self.tokens = Counter("vlm_tokens", "Tokens read, read before, of pictures, and written.", ["kind"], **of)
        self.finished = Counter("vlm_choices", "Replies by how they ended.", ["finish"], **of)
        self.first = Histogram("vlm_first_token_seconds", "From a request to the first token of its reply.", **of)

    def used(self, usage: Usage) -> None:
        for kind in ("prompt", "image", "cached", "reply"):
            self.tokens.labels(kind).inc(getattr(usage, kind))

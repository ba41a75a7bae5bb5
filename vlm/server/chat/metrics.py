"""What Prometheus is told of a chat server."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from vlm.engine.request import Drafted, Held, Usage
from vlm.server.http.metrics import EmbeddingMetrics


class ChatMetrics(EmbeddingMetrics):
    def __init__(self) -> None:
        super().__init__()
        of: dict[str, Any] = {"registry": self.registry}
        self.running = Gauge("vlm_replies_running", "Requests that the engine has.", **of)
        self.tokens = Counter("vlm_tokens", "Tokens read, read before, of pictures, and written.", ["kind"], **of)
        self.finished = Counter("vlm_choices", "Replies by how they ended.", ["finish"], **of)
        self.first = Histogram("vlm_first_token_seconds", "From a request to the first token of its reply.", **of)
        self.replies = Gauge("vlm_engine_replies", "Replies that the engine runs, and that wait.", ["state"], **of)
        self.bytes = Gauge(
            "vlm_engine_bytes",
            "Of keys and values of replies, of those kept of prompts, of visual tokens.",
            ["of"],
            **of,
        )

        self.guesses = Counter("vlm_guesses", "Tokens guessed ahead, and of them right ones.", ["drafter", "are"], **of)
        self._drafted: dict[str, Drafted] = {}

    def holds(self, held: Held) -> None:
        self.replies.labels("running").set(held.running)
        self.replies.labels("waiting").set(held.waiting)
        for of in ("reply", "prompt", "picture"):
            self.bytes.labels(of).set(getattr(held, f"{of}_bytes"))
        for name, now in held.drafted.items():
            before = self._drafted.get(name, Drafted())
            self.guesses.labels(name, "guessed").inc(now.guessed - before.guessed)
            self.guesses.labels(name, "right").inc(now.right - before.right)
        self._drafted = dict(held.drafted)

    def used(self, usage: Usage) -> None:
        for kind in ("prompt", "image", "cached", "reply"):
            self.tokens.labels(kind).inc(getattr(usage, kind))

"""A model behind an OpenAI-compatible chat endpoint as the model under test: it writes, and has no vectors."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vlm.conversation.messages import Conversation
from vlm.errors import BadInput
from vlm.evaluation.endpoint.client import ChatEndpoint, EndpointOptions
from vlm.evaluation.endpoint.decisions import body_of
from vlm.evaluation.endpoint.wire import messages
from vlm.evaluation.usage import Reply
from vlm.facade import Model
from vlm.heads.decisions.questions import Question

CAN = frozenset({"writes"})
"""Known before anything is asked of it."""


def is_chat_endpoint(address: str, model_name: str | None = None) -> bool:
    """Whether a web address is a chat endpoint's and not a retrieval server's: it ends in `/v1`, or names a model."""
    return model_name is not None or address.partition("?")[0].rstrip("/").endswith("/v1")


class EndpointModel(Model):
    """What the harness asks of a model, asked over HTTP. It writes, and embeds nothing."""

    def __init__(self, endpoint: ChatEndpoint, name: str | None = None):
        """Raises `BadInput` where nothing answers, and where no name is given of several models."""
        self.endpoint = endpoint
        super().__init__(endpoint.named(name), f"a chat model at {endpoint.url}")

    @classmethod
    def at(cls, url: str, name: str | None, options: EndpointOptions) -> EndpointModel:
        return cls(ChatEndpoint(url, options), name)

    @property
    def can(self) -> frozenset[str]:
        return CAN

    def weights_hash(self) -> str:
        """sha256 of the model's name: its weights stay unknown."""
        return hashlib.sha256(f"chat endpoint {self.name}".encode()).hexdigest()

    def converse(
        self, conversations: Sequence[Conversation], max_tokens: int, settings: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Position and reply of each conversation, as soon as it is there; several are under way at once.

        `settings` are the API's own names; without any the temperature is 0. Raises as
        `ChatEndpoint.chat`, and `BadInput` where every request is refused.
        """
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Reply | BaseException]] = queue.SimpleQueue()
        for position in range(len(conversations)):
            waiting.put(position)
        stop = threading.Event()
        asked = {"model": self.name, **({"temperature": 0} if settings is None else settings)}

        def work() -> None:
            while not stop.is_set():
                try:
                    position = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    body = {**asked, "messages": messages(conversations[position])}
                    done.put((position, self.endpoint.chat(body, max_tokens)))
                except BaseException as error:
                    done.put((position, error))

        # Daemons: an interrupt does not wait for what is under way.
        for _ in range(min(self.endpoint.options.concurrency, len(conversations))):
            threading.Thread(target=work, daemon=True).start()
        refused = 0
        try:
            for _ in conversations:
                position, found = done.get()
                if isinstance(found, BaseException):
                    stop.set()
                    yield from _there(done)  # what is paid for is kept
                    raise found
                refused += bool(found.refused)
                if not self.endpoint.answered and refused >= min(self.endpoint.options.concurrency, len(conversations)):
                    raise BadInput(f"{self.endpoint.url}: refuses every request: {found.refused}")
                yield position, found
        finally:
            stop.set()

    def decided(self, asked: Sequence[tuple[Conversation, Question]]) -> list[tuple[float, ...]]:
        """The log-probabilities `[C]` of each question's labels, up to one number a question; several are under way at
        once. Raises `BadInput` where the endpoint decides nothing or refuses a question."""

        def decide(pair: tuple[Conversation, Question]) -> tuple[float, ...]:
            return self.endpoint.decide({"model": self.name, **body_of(*pair)}, pair[1])

        threads = ThreadPoolExecutor(self.endpoint.options.concurrency)
        try:
            return list(threads.map(decide, asked))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def check_beams(self, beams: int) -> None:
        """Raises `BadInput` for more than one: the API has none."""
        if beams > 1:
            raise BadInput(f"model {self.name}: an address searches with no beams, got {beams}; expected 1")

    def replies(
        self, conversations: Sequence[Conversation], *, max_tokens: int = 256, batch: int = 16, beams: int = 1
    ) -> list[str]:
        """The texts alone. Raises `BadInput` where one is refused."""
        self.check_beams(beams)
        found = dict(self.converse(conversations, max_tokens))
        if refused := next((reply.refused for reply in found.values() if reply.refused), None):
            raise BadInput(f"{self.endpoint.url}: refuses a request: {refused}")
        return [found[position].text for position in range(len(conversations))]


def _there(done: queue.SimpleQueue[tuple[int, Reply | BaseException]]) -> Iterator[tuple[int, Reply]]:
    """The replies that are there already."""
    while not done.empty():
        position, found = done.get()
        if isinstance(found, Reply):
            yield position, found

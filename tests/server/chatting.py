"""Chat servers to test, with an engine that says what the test wants, and no more than the real one does."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from serving import picture, running

from vlm.engine.engine import Engine
from vlm.engine.request import Chance, Finish, Full, Held, Piece, Request, Token, Usage
from vlm.engine.sessions.sessions import Sessions
from vlm.facade import Model
from vlm.heads.decisions.decider import Ask, Decided, Decider, See
from vlm.heads.decisions.questions import Question
from vlm.media.video.sampling import Uniform
from vlm.server.chat.app import create_app
from vlm.server.chat.loaded import Loaded
from vlm.server.chat.settings import ChatSettings
from vlm.server.embedding.embedder import ModelEmbedder
from vlm.server.http.auth import Keys

CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"
HELLO = [{"role": "user", "content": "hello"}]
WORDS = ("A", " red", " square", ".")


class Script:
    """An engine: every reply is `words`, a token each, said in a thread of its own once `go` is set.

    `endless` ones go on until they are cancelled; `pace` is the seconds a word takes; `full` refuses; `fails` is the
    error of every request.
    """

    def __init__(
        self, words: Sequence[str] = WORDS, *, endless: bool = False, full: bool = False,
        fails: Exception | None = None, finish: Finish = "stop", pace: float = 0.0,
    ) -> None:  # fmt: skip
        self.pace = pace
        self.words, self.endless, self.full, self.fails, self.finish = tuple(words), endless, full, fails, finish
        self.go = threading.Event()
        self.go.set()
        self.asked: list[Request] = []
        self.cancelled: list[Request] = []
        self.said = 0

    def held(self) -> Held:
        return Held(0, 0, 0, 0, 0)

    def submit(self, request: Request, heard: Callable[[Piece], None]) -> Saying:
        if self.full:
            raise Full(256, 7.4)
        self.asked.append(request)
        saying = Saying(self, request, heard)
        threading.Thread(target=saying.run, daemon=True).start()
        return saying


class Saying:
    """A ticket."""

    def __init__(self, script: Script, request: Request, heard: Callable[[Piece], None]) -> None:
        self._script, self._request, self._heard = script, request, heard
        self._over = threading.Event()

    def cancel(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self._script.cancelled.append(self._request)

    def run(self) -> None:
        script, request = self._script, self._request
        while not script.go.wait(0.01) and not self._over.is_set():
            pass
        if script.fails is not None:
            return self._heard(Piece(0, error=script.fails))
        count = 0
        while not self._over.wait(script.pace) and (script.endless or count < len(script.words)):
            for choice in range(request.n):
                self._heard(Piece(choice, script.words[count % len(script.words)], (self._token(count),)))
            count, script.said = count + 1, script.said + 1
        finish: Finish = "cancelled" if self._over.is_set() else script.finish
        self._over.set()
        usage = Usage(len(request.prompt.ids), self._image(), 3, count * request.n)
        for choice in range(request.n):
            self._heard(Piece(choice, finish=finish, usage=usage if choice + 1 == request.n else None))

    def _token(self, count: int) -> Token:
        asked = self._request.sampling.alternatives
        if asked is None:
            return Token(70 + count)
        return Token(70 + count, -0.5, tuple(Chance(71 + place, -1.0 - place) for place in range(asked)))

    def _image(self) -> int:
        return sum(len(layout.grids) for layout in self._request.prompt.layouts)


class Waiting(Decider):
    """Decides once `go` is set, or ends where nobody wants that any more."""

    def __init__(self, model: Model) -> None:
        assert model.writer is not None
        super().__init__(model.writer)
        self.go, self.begun, self.ended = threading.Event(), 0, 0

    def decide(
        self, ask: Ask, questions: Sequence[Question], see: See | None = None, wanted: Callable[[], None] = lambda: None
    ) -> Decided:
        self.begun += 1
        try:
            while not self.go.wait(0.01):
                wanted()
            return super().decide(ask, questions, see, wanted)
        finally:
            self.ended += 1


def loaded(model: Model, engine: Any, name: str = "tiny", decider: Decider | None = None) -> Loaded:
    cfg = model.model.language.cfg
    assert model.writer is not None
    decider = decider or Decider(model.writer)
    embedders = () if model.embedder is None else (embedder(model, name),)
    pictures = engine.pictures if isinstance(engine, Engine) else None
    sessions = Sessions(engine, name) if isinstance(engine, Engine) else None
    return Loaded(
        name, model.processor, engine, cfg.context, cfg.vocab_size, Uniform(), decider, pictures, embedders, sessions
    )  # fmt: skip


def embedder(model: Model, name: str = "tiny") -> ModelEmbedder:
    """Of a model that embeds, under the name that it is served by."""
    found = ModelEmbedder(model, (name, len(model.embed_texts(["a"])[0])))
    found.name = name
    return found


@contextmanager
def chatting(
    model: Model, engine: Any, settings: ChatSettings | None = None, keys: Keys | None = None, name: str = "tiny",
    decider: Decider | None = None,
) -> Iterator[httpx.Client]:  # fmt: skip
    """A client of a server, ready."""
    chosen, served = settings or ChatSettings(), loaded(model, engine, name, decider)
    with running(lambda failed: create_app(chosen, lambda: served, keys, failed), chosen.limits) as client:
        yield client


@contextmanager
def openai_client(client: httpx.Client, key: str = "none") -> Iterator[Any]:
    """OpenAI's own, of the same server."""
    import openai

    with openai.OpenAI(base_url=f"{client.base_url}".rstrip("/") + "/v1", api_key=key, max_retries=0) as found:
        yield found


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(CHAT, json={"model": "tiny", "messages": HELLO, **fields})


def vector(client: httpx.Client, given: Any) -> np.ndarray:
    """Of one input, `[D]`, float32 as it was made."""
    answer = client.post(EMBED, json={"input": [given], "encoding_format": "base64"})
    assert answer.status_code == 200, answer.text
    return np.frombuffer(base64.b64decode(answer.json()["data"][0]["embedding"]), "<f4")


def data_url(content: bytes = b"", kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content or picture()).decode()}"


def showing(address: Any, text: str = "What is it?", kind: str = "image_url") -> list[dict[str, Any]]:
    """A message with a picture before its text."""
    return [{"role": "user", "content": [{"type": kind, kind: {"url": address}}, {"type": "text", "text": text}]}]


def tiny_model(folder: Path) -> Model:
    import tiny

    import vlm

    return vlm.load(tiny.write_card(folder / "tiny"), offline=True)

"""A client of a chat server, ours or another that speaks OpenAI's form: asks, reads the events, notes the times."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

CHAT = "/v1/chat/completions"
TIMEOUT = 600.0
Body = dict[str, Any]
Heard = Callable[[str], object]


@dataclass(frozen=True)
class Answer:
    """What came back. A status other than 200 has no text but the error's."""

    status: int
    text: str = ""
    tokens: int = 0
    """Of the reply, by the server's count."""
    finish: str | None = None
    """How it ended; `None` where it broke off."""
    first_seconds: float = 0.0
    """To the first piece of text."""
    seconds: float = 0.0
    """To the end."""
    retry_after: str | None = None
    done: bool = False
    """Whether `[DONE]` came; of a reply that was not streamed whether all of it did."""


def client(address: str) -> httpx.Client:
    """It has no pool to wait for: each client of a benchmark has one of its own."""
    return httpx.Client(base_url=address, timeout=TIMEOUT)


def message(text: str, *media: bytes, kind: str = "image") -> list[Body]:
    """A user's message with JPEGs (or MP4s, of kind `video`) before its text."""
    mime = "image/jpeg" if kind == "image" else "video/mp4"
    parts: list[Body] = [
        {"type": f"{kind}_url", f"{kind}_url": {"url": f"data:{mime};base64,{base64.b64encode(one).decode()}"}}
        for one in media
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def ask(
    asking: httpx.Client, body: Body, *, begun: Callable[[], object] = lambda: None, heard: Heard = lambda text: None,
    patience: float = TIMEOUT,
) -> Answer:  # fmt: skip
    """The whole answer, streamed where the body says so. `begun` is called when its status is known, `heard` after each
    piece with the text so far; what they raise ends the reading and closes the connection. Raises `httpx.ReadTimeout`
    where nothing comes for `patience` seconds."""
    began = time.perf_counter()
    with asking.stream("POST", CHAT, json=body, timeout=httpx.Timeout(TIMEOUT, read=patience)) as response:
        begun()
        if response.status_code != 200:
            told = response.read().decode(errors="replace")
            return Answer(response.status_code, told, retry_after=response.headers.get("retry-after"))
        if not body.get("stream"):
            found = json.loads(response.read())
            choice, seconds = found["choices"][0], time.perf_counter() - began
            return Answer(
                200, choice["message"]["content"], found["usage"]["completion_tokens"], choice["finish_reason"],
                seconds, seconds, done=True,
            )  # fmt: skip
        return _read(response, began, heard)


def _read(response: httpx.Response, began: float, heard: Heard) -> Answer:
    text, tokens, first, finish, done = "", 0, None, None, False
    for event in _events(response):
        if event is None:
            done = True
            continue
        if "error" in event:
            return Answer(200, f"{text}: {event['error']}", tokens, None, first or 0.0, time.perf_counter() - began)
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            if piece and first is None:
                first = time.perf_counter() - began
            text += piece
            finish = choice.get("finish_reason") or finish
        heard(text)
    seconds = time.perf_counter() - began
    return Answer(200, text, tokens, finish, first if first is not None else seconds, seconds, done=done)


def _events(response: httpx.Response) -> Iterator[Body | None]:
    """`None` is the mark of the end, which not every server sends."""
    for line in response.iter_lines():
        if line.startswith("data:"):
            said = line.removeprefix("data:").strip()
            yield None if said == "[DONE]" else json.loads(said)

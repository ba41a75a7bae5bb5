"""An OpenAI-compatible chat endpoint by its address: requests, what is tried again, and what ends a run."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import httpx

from vlm.errors import BadInput, VlmError
from vlm.evaluation.endpoint.decisions import log_probabilities
from vlm.evaluation.usage import Reply
from vlm.heads.decisions.questions import Question
from vlm.remote import KEY, checked_address, seconds_of

T = TypeVar("T")

BACKOFF, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the first repeat, doubled at each, and the most that is waited before one."""
MAX_ANSWER_BYTES = 16 * 2**20
AGAIN = frozenset([408, 409, 425, 429, 500, 502, 503, 504, 529])
"""Statuses after which the same request may succeed."""
STOPS = frozenset([401, 403, 404, 405, 429, 502, 503, 504, 529])
"""Statuses that no request of this run will do better than."""


class EndpointGone(VlmError):
    """The endpoint has stopped answering: no later request is worth trying."""


@dataclass(frozen=True)
class EndpointOptions:
    """How an endpoint is asked; nothing here changes an answer."""

    concurrency: int = 8
    """Requests under way at once."""
    retries: int = 5
    """How often one is tried again."""
    timeout: float = 300.0
    """Seconds for one."""
    prices: tuple[float, float] | None = None
    """Of a million tokens read and written, in any currency."""
    key_variable: str = KEY


class _Refused(NamedTuple):
    """For a request's own sake."""

    status: int
    content: bytes


class ChatEndpoint:
    """Safe to use from several threads."""

    def __init__(self, url: str, options: EndpointOptions, client: httpx.Client | None = None):
        """Raises `BadInput` for an address with a key in it, and where no server answers."""
        self.url, self.options = checked_address(url, options.key_variable), options
        self._key = os.environ.get(options.key_variable, "")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=options.concurrency + 1)
        self._http = client or httpx.Client(headers=headers, timeout=options.timeout, limits=limits)
        self._limit = "max_tokens"
        self.answered = False
        """Whether any request has had a reply."""
        self._stop = threading.Event()

    def models(self) -> list[str] | None:
        """The names it lists, or None where it lists none. Raises `BadInput` where no server answers."""
        try:
            status, body, _ = self._exchange("GET", "/models", None)
        except httpx.HTTPError as error:
            raise BadInput(f"{self.url}: expected an endpoint that answers, got: {_line(error)}") from None
        if status in (401, 403):
            raise self._refusal(status, body)
        try:
            return [str(one["id"]) for one in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError):
            return None

    def named(self, name: str | None) -> str:
        """The model's name: the one given, or the only one that the endpoint lists."""
        known = self.models()
        if name:
            return name
        if known is None or not known:
            raise BadInput(f"{self.url}: does not list its models; expected --model-name")
        if len(known) > 1:
            raise BadInput(f"--model-name: expected one of the {len(known)} models of {self.url}, such as {known[0]}")
        return known[0]

    def chat(self, body: Mapping[str, Any], max_tokens: int) -> Reply:
        """One reply. A busy or broken server is asked again.

        Raises `EndpointGone` where it stays so or does not answer, `BadInput` where it takes no request of ours. A
        request that is refused for its own sake gives a reply that says so.
        """
        limit = self._limit
        found = self._asked("/chat/completions", {**body, limit: max_tokens}, _reply, "chat completions")
        if isinstance(found, Reply):
            return found
        if found.status == 400 and limit == "max_tokens" and b"max_completion_tokens" in found.content:
            self._limit = "max_completion_tokens"  # OpenAI's newer models
            return self.chat(body, max_tokens)
        return Reply("", refused=self._told(found))

    def decide(self, body: Mapping[str, Any], question: Question) -> tuple[float, ...]:
        """The log-probabilities `[C]` of a question's labels, up to one number. Raises as `chat`, and `BadInput` for a
        request that is refused."""
        found = self._asked("/decisions", body, partial(log_probabilities, question=question), "decisions (--decide)")
        if isinstance(found, _Refused):
            raise BadInput(f"{self.url}: refuses a question: {self._told(found)}")
        return found

    def _asked(self, path: str, body: Mapping[str, Any], read: Callable[[bytes], T | None], what: str) -> T | _Refused:
        """What `read` makes of the answer."""
        for attempt in range(self.options.retries + 1):
            last = attempt == self.options.retries
            try:
                status, content, headers = self._exchange("POST", path, body)
            except httpx.HTTPError as error:
                if last:
                    raise EndpointGone(f"{self.url}: stopped answering: {_line(error)} ({attempt + 1} times)") from None
                self._wait(attempt)
                continue
            if status == 200 and (found := read(content)) is not None:
                self.answered = True
                return found
            if last or (status != 200 and status not in AGAIN):
                break
            self._wait(attempt, headers.get("Retry-After"))
        if status in STOPS or status == 200:
            raise self._refusal(status, content, what)
        return _Refused(status, content)

    def _told(self, refused: _Refused) -> str:
        return f"{refused.status}: {self._said(refused.content)}"

    def close(self) -> None:
        self._stop.set()
        self._http.close()

    def _exchange(self, method: str, path: str, body: Any) -> tuple[int, bytes, httpx.Headers]:
        if self._stop.is_set():
            raise EndpointGone(f"{self.url}: no longer asked")
        with self._http.stream(method, self.url + path, json=body) as answer:
            content = b""
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise httpx.DecodingError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return answer.status_code, content, answer.headers

    def _wait(self, attempt: int, asked: str | None = None) -> None:
        seconds = seconds_of(asked)
        if seconds is None:
            seconds = BACKOFF * 2**attempt * random.uniform(0.75, 1.25)  # not all at the same moment
        self._stop.wait(min(seconds, LONGEST_WAIT))

    def _refusal(self, status: int, content: bytes, what: str = "chat completions") -> VlmError:
        said = self._said(content)
        if status in (401, 403):
            has = "is not taken" if self._key else "is not set"
            return BadInput(f"{self.url}: {status}: {said}; the key in ${self.options.key_variable} {has}")
        if status in (404, 405, 200):
            return BadInput(f"{self.url}: expected OpenAI's {what}, got {status}: {said}")
        return EndpointGone(f"{self.url}: {status} after {self.options.retries} repeats: {said}")

    def _said(self, content: bytes) -> str:
        """The server's own words on one line, without the key should it repeat that."""
        text = content[:4000].decode("utf-8", "replace")
        try:
            found = json.loads(content)
            error = found.get("error", found.get("detail", found.get("message", text)))
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            pass
        text = text.replace(self._key, "***") if self._key else text
        return _line(text) or "nothing"


def _reply(content: bytes) -> Reply | None:
    """What a chat completion says; None where it is none."""
    try:
        found = json.loads(content)
        choice = found["choices"][0]
        said = choice["message"].get("content")
        if isinstance(said, list):
            said = "".join(part.get("text", "") for part in said)
        usage = found.get("usage") or {}
        counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
        read, written = (int(count) if isinstance(count, int | float) else None for count in counts)
        return Reply(str(said or "").strip(), read, written, choice.get("finish_reason") == "length")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _line(text: object) -> str:
    said = " ".join(str(text).split()) or type(text).__name__
    return said if len(said) <= 300 else said[:299] + "…"

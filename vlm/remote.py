"""A running server of the retrieval API, asked over HTTP: its key, its errors, and what is asked again."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import httpx

from vlm.errors import BadInput, VlmError

KEY = "VLM_SERVER_KEY"
"""The environment variable with the key, where the server wants one. A key is never written anywhere."""
AGAIN = frozenset([408, 425, 429, 502, 503, 504])
"""Statuses after which the same request may succeed."""
BACKOFF, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the first repeat, doubled at each, and the most that is waited before one."""

Form: TypeAlias = Callable[[], AbstractContextManager[dict[str, Any]]]


class Refused(BadInput):
    """What a server answered instead of what it was asked for, in its own words."""

    def __init__(self, message: str, status: int, code: str, said: str) -> None:
        super().__init__(message)
        self.status, self.code, self.said = status, code, said


class Gone(VlmError):
    """A server that was there has stopped answering: no later request is worth trying."""


class Server:
    """By its address. Safe to use from several threads."""

    def __init__(self, url: str, client: httpx.Client | None = None, *, patience: float = 120.0) -> None:
        """For `patience` seconds a request is tried again while the server is busy, or was there and is not any more.

        Raises `BadInput` for an address with a key in it, or that is none.
        """
        self.url, self.patience = checked_address(url), patience
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(600.0, connect=10.0)  # an upload may wait for its turn
        self._http = client or httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        self._answered, self._stop = False, threading.Event()

    def ask(self, method: str, path: str, body: object = None, form: Form | None = None) -> Any:
        """The answer's JSON. `form` opens httpx's `data` and `files`, anew for each time that they are sent.

        Raises `Refused` where the server does not do it, `BadInput` where no server of the API has answered yet, and
        `Gone` where it does so no longer.
        """
        until = time.monotonic() + self.patience
        for attempt in range(1_000_000):
            wait = BACKOFF * 2 ** min(attempt, 10) * random.uniform(0.75, 1.25)  # not all at the same moment
            try:
                with nullcontext({}) if form is None else form() as parts:
                    answer = self._http.request(method, path, json=body, **parts)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if not self._answered:
                    raise BadInput(f"{self.url}: expected a server that answers, got: {_line(error)}") from None
                if not self._waited(wait, until):
                    raise Gone(f"{self.url}: stopped answering: {_line(error)}") from None
                continue
            self._answered = True
            asked = seconds_of(answer.headers.get("Retry-After"))
            if answer.status_code in AGAIN and self._waited(wait if asked is None else asked, until):
                continue
            return self._found(answer, f"{method} {path}")
        raise AssertionError

    def pause(self, seconds: float) -> None:
        """For less where nobody wants an answer any more."""
        self._stop.wait(seconds)

    def close(self) -> None:
        """Nothing is waited for any more."""
        self._stop.set()
        self._http.close()

    def _found(self, answer: httpx.Response, what: str) -> Any:
        try:
            found = answer.json()
            if answer.is_success:
                return found
            code, said = str(found["error"]["code"]), str(found["error"]["message"])
        except (ValueError, KeyError, TypeError):
            got = f"{answer.status_code} without it"
            raise BadInput(f"{self.url}: expected the retrieval API, got {got}") from None
        key = f" (the key is read from ${KEY})" if answer.status_code == 401 else ""
        raise Refused(f"{self.url}: {what}: {said}{key}", answer.status_code, code, said)

    def _waited(self, seconds: float, until: float) -> bool:
        """Whether there was time left to wait; not where nobody wants an answer any more."""
        seconds = min(seconds, LONGEST_WAIT)
        if time.monotonic() + seconds > until:
            return False
        return not self._stop.wait(seconds)


def checked_address(url: str, key_variable: str = KEY) -> str:
    """The address as it is kept and printed. Raises `BadInput` where it has a key in it, or is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadInput(f"{url:.200}: expected an address, got: {error}") from None
    if parsed.userinfo or parsed.query:
        raise BadInput(
            f"{parsed.scheme}://{parsed.host}: expected an address without a user, a password or a query, "
            f"as it is kept and printed; the key is read from ${key_variable}"
        )
    return url.rstrip("/")


def seconds_of(asked: str | None) -> float | None:
    """What `Retry-After` says, seconds or a date."""
    if asked is None:
        return None
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

"""Many clients of a chat server at once: some read slowly, some vanish, and each whole reply is held to the one that
the same request had alone."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from vlm import assets
from vlm.bench import chat_decisions
from vlm.bench.chat_client import CHAT, Answer, Body, ask, client, message
from vlm.bench.service import photographs_of
from vlm.errors import VlmError

TOKENS = 24
"""Of a reply at most."""
KINDS = {"whole": 30, "stream": 25, "slow": 10, "vanish": 15, "drop": 5, "decide": 5, "malformed": 5}
"""How often each is done."""
CLIPS = ("city_at_night.mp4", "temple_and_flower.mp4")
TEXTS = (
    "Tell me a story about the sea.", "Why is the sky blue?", "Name three birds.", "What is a lighthouse for?",
    "Write a line about snow.", "How do bees find flowers?",
)  # fmt: skip
WRONG: tuple[Body, ...] = (
    {"messages": []},
    {"messages": message("hello"), "max_tokens": 0},
    {"messages": message("What is it?", b"no picture")},
    {"messages": message("hello"), "tools": [{"type": "function"}]},
    {"messages": message("hello"), "nonsense": 1},
)


def requests() -> dict[str, Body]:
    """By name: texts, a picture and two, another question about one, clips, and replies that are drawn."""
    pictures = list(photographs_of(4))
    found = {f"text {number}": message(text) for number, text in enumerate(TEXTS)}
    found |= {f"picture {number}": message("What is it?", one) for number, one in enumerate(pictures)}
    found |= {f"picture {number} again": message("What colour is it?", one) for number, one in enumerate(pictures)}
    found["two pictures"] = message("What is the difference?", *pictures[:2])
    for name in CLIPS:
        found[name] = message("What happens?", (assets.root() / "data" / "samples" / name).read_bytes(), kind="video")
    bodies: dict[str, Body] = {name: {"messages": said, "max_tokens": TOKENS} for name, said in found.items()}
    for name in CLIPS:
        bodies[name]["max_frames"] = 3
    for seed in range(3):
        bodies[f"drawn {seed}"] = {**bodies["text 0"], "temperature": 0.9, "top_p": 0.9, "seed": seed}
    return bodies


@dataclass
class Log:
    """What the clients saw together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """With 429, to come again."""
    answers: list[Answer] = field(default_factory=list)
    """Whole ones."""
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    killed: bool = False
    """Since when nothing that breaks off is lost."""


class Gone(Exception):
    """A client that does not want the rest."""


class Client:
    """Asks one thing after another. `alone` has the text of each of `bodies`, `decided` the answers about `picture`."""

    def __init__(
        self, number: int, address: str, log: Log, bodies: Mapping[str, Body], alone: Mapping[str, str],
        decided: object, picture: bytes,
    ) -> None:  # fmt: skip
        self.random, self.log, self.bodies, self.alone = random.Random(number), log, bodies, alone
        self.decided, self.picture, self.http = decided, picture, client(address)

    def run(self, over: Callable[[], bool]) -> None:
        """Until then, or until the server is killed."""
        with self.http:
            while not over():
                kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
                try:
                    wait = getattr(self, f"do_{kind}")()
                except (httpx.TransportError, ValueError) as error:
                    if self.log.killed:
                        return
                    self._note(self.log.lost, f"{kind}: {type(error).__name__}: {error}")
                    continue
                with self.log.lock:
                    self.log.requests[kind] += wait is None
                    self.log.refused += wait is not None
                until = time.monotonic() + (wait or 0)
                while not over() and time.monotonic() < until:
                    time.sleep(0.1)

    # Each gives the seconds after which to come again, where it was refused.

    def do_whole(self) -> int | None:
        return self._asked(False)

    def do_stream(self) -> int | None:
        return self._asked(True)

    def do_slow(self) -> int | None:
        pause = self.random.uniform(0.05, 0.4)
        return self._asked(True, lambda text: time.sleep(pause))

    def do_vanish(self) -> int | None:
        """In the middle of a stream, or before its first piece; what came until then is right."""
        name, left = self._name(), self.random.randrange(8)

        def heard(text: str) -> None:
            nonlocal left
            if not self.alone[name].startswith(text):
                self._note(self.log.wrong, f"{name}: expected a beginning of {self.alone[name]!r}, got {text!r}")
            if not left:
                raise Gone
            left -= 1

        try:
            return self._judged(name, ask(self.http, {**self.bodies[name], "stream": True}, heard=heard))
        except Gone:
            return None

    def do_drop(self) -> int | None:
        """While the whole reply is waited for."""
        name = self._name()
        try:
            return self._judged(name, ask(self.http, self.bodies[name], patience=self.random.uniform(0.05, 2)))
        except httpx.ReadTimeout:
            return None

    def do_decide(self) -> int | None:
        response = self.http.post("/v1/decisions", json=chat_decisions.body(self.picture, 3))
        if response.status_code == 429:
            return self._refusal("decisions", response.headers.get("retry-after"))
        got = response.json().get("answers")
        if got != self.decided:
            self._note(self.log.wrong, f"decisions: expected {self.decided}, got {response.status_code} {got}")
        return None

    def do_malformed(self) -> int | None:
        body = self.random.choice(WRONG)
        response = self.http.post(CHAT, json=body)
        if response.status_code == 429:
            return self._refusal("malformed", response.headers.get("retry-after"))
        if not 400 <= response.status_code < 500 or set(response.json()) != {"error"}:
            self._note(self.log.wrong, f"malformed {str(body)[:80]}: expected 4xx, got {response.status_code}")
        return None

    def _asked(self, stream: bool, heard: Callable[[str], object] = lambda text: None) -> int | None:
        name = self._name()
        wishes = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return self._judged(name, ask(self.http, {**self.bodies[name], **wishes}, heard=heard))

    def _judged(self, name: str, answer: Answer) -> int | None:
        if answer.status == 429:
            return self._refusal(name, answer.retry_after)
        if trouble := judged(answer, self.alone[name]):
            self._note(
                self.log.lost if answer.status == 200 and not answer.done else self.log.wrong, f"{name}: {trouble}"
            )
        else:
            with self.log.lock:
                self.log.answers.append(answer)
        return None

    def _refusal(self, name: str, after: str | None) -> int:
        if after is None or not after.isdecimal() or int(after) < 1:
            self._note(self.log.wrong, f"{name}: expected Retry-After of a second or more beside 429, got {after}")
            return 1
        return int(after)

    def _name(self) -> str:
        return self.random.choice(list(self.bodies))

    def _note(self, where: list[str], what: str) -> None:
        with self.log.lock:
            where.append(what[:500])


def judged(answer: Answer, alone: str) -> str:
    """What is wrong with an answer that was to be whole and the same as alone; nothing where it is."""
    if answer.status != 200:
        return f"expected 200, got {answer.status}: {answer.text[:200]}"
    if not answer.done or answer.finish not in ("stop", "length"):
        return f"expected a whole reply, got one that broke off at {answer.text[-200:]!r}"
    return "" if answer.text == alone else f"expected {alone!r}, as alone, got {answer.text!r}"


def said_alone(address: str, bodies: Mapping[str, Body], picture: bytes) -> tuple[dict[str, str], object]:
    """The text of each request, and the decisions, when nothing else is asked. Raises `VlmError` for none."""
    texts = {}
    with client(address) as asking:
        for name, body in bodies.items():
            answer = ask(asking, body)
            if trouble := judged(answer, answer.text):
                raise VlmError(f"{name}, alone: {trouble}")
            texts[name] = answer.text
        response = asking.post("/v1/decisions", json=chat_decisions.body(picture, 3))
        if response.status_code != 200:
            raise VlmError(f"decisions, alone: expected 200, got {response.status_code}: {response.text[:200]}")
        return texts, response.json()["answers"]


def together(clients: Sequence[Client], over: Callable[[], bool]) -> None:
    """All of them, each in a thread; raises what one of them raises."""
    with ThreadPoolExecutor(len(clients)) as threads:
        for done in [threads.submit(one.run, over) for one in clients]:
            done.result()

"""What is asked of the engine, and what it gives: a request, and its replies piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from vlm.errors import VlmError
from vlm.models.processor import Prompt

Finish = Literal["stop", "length", "deadline", "cancelled"]
"""Why a reply ended: a stop token or string, `max_tokens`, the request's deadline, or the caller."""


class Full(VlmError):
    """The engine's queue has no room; `seconds` is about when to ask again."""

    def __init__(self, waiting: int, seconds: float):
        super().__init__(f"{waiting} requests wait; expected fewer")
        self.seconds = seconds


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen; by default the likeliest."""

    temperature: float = 0.0
    """0 is greedy; logits are divided by it."""
    top_k: int | None = None
    """Of the likeliest tokens alone."""
    top_p: float = 1.0
    """Of the likeliest tokens that have this mass together (arXiv:1904.09751)."""
    min_p: float = 0.0
    """Of the tokens that are at least so likely as this share of the likeliest (arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens in the prompt or reply (arXiv:1909.05858)."""
    presence_penalty: float = 0.0
    """Taken from the logit of each token in the reply, as OpenAI has it."""
    frequency_penalty: float = 0.0
    """The same for each time it is there."""
    bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of tokens."""
    seed: int | None = None
    """The same seed gives the same reply; without one it is drawn when the request comes."""
    alternatives: int | None = None
    """The likeliest tokens at each place that are told with their log-probabilities; `None` tells not even that of the
    chosen one."""


class Constraint(Protocol):
    """Which tokens a reply may go on with. One is begun for each reply."""

    def begin(self) -> Followed:
        """At the reply's start."""


class Followed(Protocol):
    """A constraint at one place of one reply."""

    def allowed(self) -> np.ndarray:
        """Boolean `[V]`: true at the tokens that may come next, those that end the reply among them."""

    def take(self, token: int) -> None:
        """Go on behind a token."""


@dataclass(frozen=True)
class Drafted:
    """Tokens guessed of replies, and those of them that were right."""

    guessed: int = 0
    right: int = 0

    def __add__(self, more: Drafted) -> Drafted:
        return Drafted(self.guessed + more.guessed, self.right + more.right)


@dataclass(frozen=True)
class Held:
    """What an engine has at one moment. Sizes in bytes."""

    running: int
    """Replies that are read or written."""
    waiting: int
    """Replies that wait to be begun."""
    reply_bytes: int
    """Keys and values of the running ones, those of drafters among them."""
    prompt_bytes: int
    """Those kept of earlier prompts."""
    picture_bytes: int
    """Visual tokens kept."""
    drafted: Mapping[str, Drafted] = field(default_factory=dict)
    """Since the engine began, by drafter."""


@dataclass(frozen=True)
class Request:
    """A conversation to be answered `n` times."""

    prompt: Prompt
    max_tokens: int = 256
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    """Texts at which a reply ends, without them."""
    constraint: Constraint | None = None
    n: int = 1
    """Replies, each with a seed of its own."""
    priority: int = 0
    """Lower ones first."""
    client: str = ""
    """Who asks: clients take turns, and share no cached picture or prompt with each other."""
    seconds: float | None = None
    """The reply ends so long after the request came, with what there is by then."""


@dataclass(frozen=True)
class Chance:
    """A token with its log-probability before any constraint, temperature or penalty."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Token:
    """One that was chosen, and the likeliest ones at its place if they were asked for."""

    token: int
    logprob: float | None = None
    top: tuple[Chance, ...] = ()


@dataclass(frozen=True)
class Usage:
    """What one request cost."""

    prompt: int
    """Tokens, image tokens among them."""
    image: int
    cached: int
    """Tokens of the prompt that were read before."""
    reply: int


@dataclass(frozen=True)
class Piece:
    """What was added to one reply. Its text is final; a token's text may come later, when the next one completes a
    character or shows that no stop string has begun."""

    choice: int
    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    """With the last piece of the last reply."""
    error: Exception | None = None
    """The request failed; nothing comes after it."""

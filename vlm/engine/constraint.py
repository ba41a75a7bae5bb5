"""Replies of a given form - one of some texts, JSON of a schema, a regular expression, a grammar - by llguidance.

Strangers send grammars: their texts are bounded, and so are the states, items and seconds that they may take. V
vocabulary.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput, VlmError

T = TypeVar("T")
MOST_BYTES = 2**16
"""Of a grammar's text: some thousand rules or properties."""
LIMITS = {"max_grammar_size": 50_000, "step_max_items": 20_000, "max_lexer_states": 100_000, "verbose_errors": False}
"""Of llguidance, which keeps to them by refusing; none of them bounds the time of an ambiguous grammar."""
SECONDS, SECONDS_A_TOKEN = 1.0, 0.01
"""Of computing that a reply's masks may take, and more for each of its tokens; one mask takes a millisecond or less."""
BLANKS = r" |\n {0,16}"
"""Between the signs of JSON: without a bound a model may go on with blanks for ever."""
_STACK = 2**28
"""A chain of rules that name each other is followed by recursion: 64 KiB of them needed 32 MiB of stack."""
_starting = threading.Lock()


@dataclass(frozen=True)
class Vocabulary:
    """What constraints need of a model; make one a model, as reading its tokenizer takes a second."""

    tokenizer: TextTokenizer
    size: int
    """Of the model's logits, which may be more than the tokenizer has: what is more is never allowed."""
    stop_tokens: frozenset[int]
    """Those that end a reply. No other control token is ever allowed."""

    @cached_property
    def tokens(self) -> Any:
        """llguidance's tokenizer. Raises `BadInput` for one that it does not know."""
        try:
            return _library().LLTokenizer(self.tokenizer.to_json(), n_vocab=self.size, eos_token=self.ends)
        except ValueError as error:
            raise BadInput(f"tokenizer: expected one whose replies can be constrained, got: {_line(error)}") from None

    @cached_property
    def words(self) -> np.ndarray:
        """Boolean `[V]`: false at control tokens and padding."""
        tokens = self.tokens
        return np.array([not tokens.is_special_token(n) for n in range(self.size)])

    @cached_property
    def ends(self) -> list[int]:
        return sorted(self.stop_tokens)


class GrammarConstraint:
    """A grammar that was read for a vocabulary, and is followed anew by each reply; from any thread."""

    def __init__(self, vocabulary: Vocabulary, make: Callable[[], str], what: str):
        """`make` gives the grammar as llguidance has it, `what` it is called. Raises `BadInput` for what is none, what
        is too large, and what no reply can have."""
        library, tokens = _library(), vocabulary.tokens

        def read() -> Any:
            return library.LLMatcher(tokens, make(), log_level=0, limits=library.LLParserLimits(**LIMITS))

        try:
            self._matcher = _with_room(read)
        except ValueError as error:
            raise BadInput(f"{what}: {_line(error)}") from None
        self._vocabulary, self._what = vocabulary, what
        self.begin().allowed()  # the first mask is the most work, and is kept

    def begin(self) -> FollowedGrammar:
        return FollowedGrammar(self._matcher.deep_copy(), self._vocabulary, self._what)


class FollowedGrammar:
    """A grammar at one place of one reply. Errors are `BadInput`s, and it is of no use after one."""

    def __init__(self, matcher: Any, vocabulary: Vocabulary, what: str):
        self._matcher, self._vocabulary, self._what = matcher, vocabulary, what
        self._taken = 0
        self._seconds = 0.0

    def allowed(self) -> np.ndarray:
        """Boolean `[V]`. Raises `BadInput` where there is none, and for a grammar that takes too much computing."""
        with self._bounded():
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        words_V = self._vocabulary.words
        allowed_V = np.unpackbits(bits, count=len(words_V), bitorder="little").astype(bool) & words_V
        allowed_V[self._vocabulary.ends] = self._matcher.is_accepting()
        if not allowed_V.any():
            raise BadInput(
                f"{self._what}: expected a form that words of the vocabulary can have, got none that may come"
            )
        return allowed_V

    def take(self, token: int) -> None:
        """Raises `BadInput` for a token that is not allowed."""
        words_V = self._vocabulary.words
        ends = token in self._vocabulary.stop_tokens
        taken = False
        with self._bounded():
            if ends:
                taken = self._matcher.is_accepting() and self._matcher.consume_token(token)
            elif 0 <= token < len(words_V) and words_V[token]:
                taken = self._matcher.try_consume_tokens([token]) == 1
        if not taken:
            raise BadInput(f"{self._what}: expected one of the tokens that may come, got {token}")
        self._taken += 1

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        began = time.thread_time()
        yield
        self._seconds += time.thread_time() - began
        if self._matcher.is_error():
            raise BadInput(f"{self._what}: {_line(self._matcher.get_error())}")
        if self._seconds > SECONDS + SECONDS_A_TOKEN * self._taken:
            raise BadInput(f"{self._what}: too ambiguous: {self._taken} tokens took {self._seconds:.1f} seconds")


def choices(vocabulary: Vocabulary, texts: Sequence[str]) -> GrammarConstraint:
    """One of some texts. Raises `BadInput` where there are none, or an empty one."""
    if not texts or not all(texts):
        raise BadInput(f"choices: expected some texts, none of them empty, got {list(texts)!r:.100}")
    return regex(vocabulary, "|".join(re.escape(text) for text in dict.fromkeys(texts)), "choices")


def json_schema(vocabulary: Vocabulary, schema: Mapping[str, Any]) -> GrammarConstraint:
    """JSON that is valid by a schema (2020-12). Raises `BadInput` for keywords that cannot be followed."""
    what = "json_schema"
    if not isinstance(schema, Mapping):
        raise BadInput(f"{what}: expected a JSON object, got {type(schema).__name__}")
    try:
        text = _bounded_text(json.dumps(schema), what)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{what}: expected a JSON object, got: {_line(error)}") from None
    options = {"whitespace_pattern": BLANKS, "whitespace_flexible": True, "lenient": False, "coerce_one_of": False}
    read = _library().LLMatcher.grammar_from_json_schema
    return GrammarConstraint(vocabulary, lambda: read(text, overrides=options), what)


def json_object(vocabulary: Vocabulary) -> GrammarConstraint:
    """Any JSON object."""
    return json_schema(vocabulary, {"type": "object"})


def regex(vocabulary: Vocabulary, pattern: str, what: str = "regex") -> GrammarConstraint:
    """A text that all of it matches a regular expression, of Rust's syntax: without look-around and backreferences."""
    text = _bounded_text(pattern, what)
    return GrammarConstraint(vocabulary, lambda: _library().LLMatcher.grammar_from_regex(text), what)


def grammar(vocabulary: Vocabulary, lark: str) -> GrammarConstraint:
    """A text of a grammar as llguidance writes them, which is like Lark's; it begins with the rule `start`."""
    text = _bounded_text(lark, "grammar")
    return GrammarConstraint(vocabulary, lambda: _library().LLMatcher.grammar_from_lark(text), "grammar")


def _library() -> ModuleType:
    try:
        import llguidance
    except ImportError:
        raise VlmError("replies of a given form need llguidance (pip: vlm[serve])") from None
    return llguidance


def _bounded_text(text: str, what: str) -> str:
    """Raises `BadInput` where it is long, or no text."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise BadInput(f"{what}: expected a text, got: {_line(error)}") from None
    if size > MOST_BYTES:
        raise BadInput(f"{what}: expected at most {MOST_BYTES} bytes, got {size}")
    return text


def _with_room(work: Callable[[], T]) -> T:
    """What work gives, done in a thread with a large stack: llguidance would end the process where it has none left."""
    with _starting:
        usual = threading.stack_size(_STACK)
        try:
            executor = ThreadPoolExecutor(1)
            done = executor.submit(work)
        finally:
            threading.stack_size(usual)
    with executor:
        return done.result()


def _line(error: Exception | str) -> str:
    """What llguidance says, without where it stood."""
    said = re.split(r"<state>|<non-verbose/>", str(error))[0]
    reason = re.search(r"^error: (.*)", said, re.MULTILINE)  # below the pattern, which may be long
    return " ".join((reason[1] if reason else said).split())[:200]

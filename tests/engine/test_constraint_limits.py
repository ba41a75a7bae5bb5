"""What strangers send as a form of replies is refused in one line, whatever it is, and soon."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from vlm.conversation.tokenizer import TextTokenizer
from vlm.engine import constraint
from vlm.engine.constraint import MOST_BYTES, FollowedGrammar, Vocabulary, choices, grammar, json_schema, regex
from vlm.errors import BadInput


@pytest.fixture(scope="module")
def vocabulary(tokenizer: TextTokenizer) -> Vocabulary:
    return Vocabulary(tokenizer, 320, frozenset({tokenizer.control("<|im_end|>")}))


def nested(count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(count):
        found = {"items": found}
    return found


def chain(rule: str) -> str:
    """A grammar whose rules name one another, each the next, as long as may be."""
    count = MOST_BYTES // len(rule.format("r1000", "r1000") + "\n")
    return "\n".join(["start: r0", *(rule.format(f"r{n}", f"r{n + 1}") for n in range(count)), f'r{count}: "a"'])


BAD: list[tuple[str, Callable[..., object], Any, str]] = [
    ("no choice", choices, [], r"choices: expected some texts, none of them empty, got \[\]"),
    ("an empty choice", choices, ["a", ""], r"choices: expected some texts, none of them empty, got \['a', ''\]"),
    ("broken text", choices, ["\ud800"], "choices: expected a text, got: .*surrogates not allowed"),
    ("unclosed", regex, "[a", "regex: unclosed character class"),
    ("look-ahead", regex, "(?=a)b", "regex: look-around, including look-ahead and look-behind, is not supported"),
    ("backreference", regex, r"(a)\1", "regex: backreferences are not supported"),
    ("nested groups", regex, "(" * 20_000 + "a" + ")" * 20_000, "regex: exceed the maximum number of nested .*"),
    ("no JSON", json_schema, {"type": {1, 2}}, "json_schema: expected a JSON object, got: .* not JSON serializable"),
    ("unknown type", json_schema, {"type": "text"}, "json_schema: Invalid type: text"),
    ("what cannot be followed", json_schema, {"not": {"type": "null"}}, r'json_schema: Unimplemented keys: \["not"\]'),
    ("asked to be lenient", json_schema, {"not": {}, "x-guidance": {"lenient": True}}, ".*Unimplemented keys.*"),
    ("no object", json_schema, True, "json_schema: expected a JSON object, got bool"),
    ("no reply at all", json_schema, {"type": "array", "minItems": 2, "maxItems": 1}, "json_schema: Unsatisfiable.*"),
    ("a file", json_schema, {"$ref": "file:///etc/passwd"}, "json_schema: Resource 'file:///etc/passwd' is not .*"),
    ("an address", json_schema, {"$ref": "http://127.0.0.1/a"}, "json_schema: Resource 'http://127.0.0.1/a' is not .*"),
    ("nested schemas", json_schema, nested(500), "json_schema: recursion limit exceeded.*"),
    ("deeply nested schemas", json_schema, nested(100_000), "json_schema: expected a JSON object, got: .*recursion.*"),
    ("no grammar", grammar, "what?", r"grammar: 1\(5\): Expected token .*"),
    ("an empty grammar", grammar, "", "grammar: Empty grammar"),
    ("an unknown rule", grammar, 'start: "a" b', r'grammar: at 1\(8\): unknown name: "b".*'),
    ("a file in a grammar", grammar, '%import /etc/passwd\nstart: "a"', r"grammar: 1\(9\): Expected name.*"),
    ("a rule that never ends", grammar, "start: start", "grammar: .+"),
    ("nested brackets", grammar, "start: " + "(" * 9000 + '"a"' + ")" * 9000, "grammar: .*too deeply nested.*"),
    ("doubling", grammar, "start: A0\n" + "\n".join(f"A{n}: A{n + 1} A{n + 1}" for n in range(40)) + '\nA40: "a"',
     r"grammar: at \d+\(6\): initial lexer configuration \(grammar\) too big.*"),
    ("may all be left out", grammar, "start: " + '"a"? ' * 10_000, "grammar: .*Too many items.*"),
    ("long", regex, "a" * (MOST_BYTES + 1), f"regex: expected at most {MOST_BYTES} bytes, got {MOST_BYTES + 1}"),
    ("long choices", choices, ["ä" * 40_000], f"choices: expected at most {MOST_BYTES} bytes, got 80000"),
    ("a long schema", json_schema, {"enum": ["a" * MOST_BYTES]}, f"json_schema: expected at most {MOST_BYTES} bytes.*"),
    ("a long grammar", grammar, f'start: "{"a" * MOST_BYTES}"', f"grammar: expected at most {MOST_BYTES} bytes.*"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "asked", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_forms_are_refused(vocabulary: Vocabulary, make: Callable[..., object], asked: Any, said: str) -> None:
    began = time.thread_time()
    with pytest.raises(BadInput, match=f"^{said}$") as error:
        make(vocabulary, asked)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
    assert time.thread_time() - began < 10


CHAINED: dict[str, Callable[[Any], Any]] = {
    "items": lambda following: {"items": following},
    "additionalProperties": lambda following: {"additionalProperties": following},
    "properties": lambda following: {"properties": {"a": following}},
}


@pytest.mark.parametrize("key", CHAINED)
def test_long_chains_of_schemas_do_not_end_the_process(vocabulary: Vocabulary, key: str) -> None:
    """llguidance follows them by recursion: 1,000 of them overflow a usual stack."""
    count = 1200
    schema = {f"{n:x}": CHAINED[key]({"$ref": f"#/{n + 1:x}"}) for n in range(count)}
    schema |= {f"{count:x}": {"type": "array"}, "$ref": "#/0"}
    assert json_schema(vocabulary, schema).begin().allowed().any()


@pytest.mark.parametrize("rule", ["{0}:{1}", "{0}:{1} {1}", '{0}:"a" {1}|"b"'])
def test_long_chains_of_rules_do_not_end_the_process(vocabulary: Vocabulary, rule: str) -> None:
    text = chain(rule)
    assert MOST_BYTES * 0.9 < len(text) <= MOST_BYTES
    assert grammar(vocabulary, text).begin().allowed().any()


def test_threads_that_begin_later_have_their_usual_stack(vocabulary: Vocabulary) -> None:
    before = threading.stack_size()
    choices(vocabulary, ["yes"])
    assert threading.stack_size() == before


def follow(followed: FollowedGrammar, tokens: Iterable[int]) -> None:
    for token in tokens:
        followed.allowed()
        followed.take(token)


def test_a_grammar_that_takes_ever_more_time_is_refused_under_way(vocabulary: Vocabulary) -> None:
    """Each token may be many things at once, and what they may be together grows by the third power of their number."""
    followed = grammar(vocabulary, 'start: s\ns: s s | s s s | "a" | "b" | ""').begin()
    token = vocabulary.tokenizer.encode("a")[0]
    began = time.thread_time()
    with pytest.raises(BadInput, match=r"^grammar: (too ambiguous: \d+ tokens took \d+\.\d seconds|parser error: .*)$"):
        follow(followed, [token] * 2000)
    assert time.thread_time() - began < 30
    with pytest.raises(BadInput, match=r"^grammar: "):
        followed.allowed()


def test_states_without_end_are_refused_under_way(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of this pattern tells apart all that the last thirty letters may be."""
    monkeypatch.setitem(constraint.LIMITS, "max_lexer_states", 500)
    letters = vocabulary.tokenizer.encode("a") + vocabulary.tokenizer.encode("b")
    followed = regex(vocabulary, ".*a.{30}").begin()
    with pytest.raises(BadInput, match=r"^regex: lexer error: too many states: 500 >= 500$"):
        follow(followed, random.Random(0).choices(letters, k=2000))

"""Constrained replies: whatever is drawn through the masks has the form that was asked for."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from jsonschema import Draft202012Validator
from tokenizers import Tokenizer, decoders, models, normalizers

from vlm.conversation.tokenizer import TextTokenizer
from vlm.engine.constraint import (
    GrammarConstraint,
    Vocabulary,
    choices,
    grammar,
    json_object,
    json_schema,
    regex,
)
from vlm.errors import BadInput, VlmError
from vlm.models.assembled import Assembled

PADDING = 24


@pytest.fixture(scope="module")
def byte_level(tokenizer: TextTokenizer) -> Vocabulary:
    ends = frozenset({tokenizer.control("<|im_end|>"), tokenizer.control("<|endoftext|>")})
    return Vocabulary(tokenizer, tiny.LANGUAGE.vocab_size + PADDING, ends)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """As Llama 2 has it: words with a blank before them, and bytes for what is in no word."""
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁yes",
        "no",
        "▁n",
        "red",
        "{",
        '"',
    ]
    tokenizer = Tokenizer(
        models.BPE({word: n for n, word in enumerate(words)}, [], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.json"
    tokenizer.save(str(path))
    return Vocabulary(TextTokenizer(path), len(words) + PADDING, frozenset({2}))


@pytest.fixture(scope="module")
def published(nano: Assembled) -> Vocabulary:
    return Vocabulary(nano.tokenizer, nano.model.language.cfg.vocab_size, nano.processor.stop_tokens)


VOCABULARIES = ["byte_level", "pieces", pytest.param("published", marks=pytest.mark.weights)]


@pytest.fixture(params=VOCABULARIES)
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Vocabulary)
    return found


def drawn(constraint: GrammarConstraint, vocabulary: Vocabulary, seed: int, most: int = 600) -> str | None:
    """A reply of random tokens that may come, `None` where it did not end."""
    chance, followed, ids = random.Random(seed), constraint.begin(), []
    ends = sorted(vocabulary.stop_tokens)
    for _ in range(most):
        allowed = followed.allowed()
        may_end = allowed[ends].any()
        allowed[ends] = False
        words = allowed.nonzero()[0]
        if may_end and (not len(words) or chance.random() < 0.3):
            followed.take(chance.choice(ends))
            return vocabulary.tokenizer.decode(ids)
        ids.append(int(words[chance.randrange(len(words))]))
        followed.take(ids[-1])
    return None


def replies(constraint: GrammarConstraint, vocabulary: Vocabulary, count: int = 12) -> list[str]:
    """Those of random replies that ended: at least some."""
    found = [reply for seed in range(count) if (reply := drawn(constraint, vocabulary, seed)) is not None]
    assert len(found) > count // 2
    return found


PATTERNS = [
    r"(yes|no)",
    r"[0-9]{1,3}(\.[0-9]+)?",
    r"[a-z]{1,8}@[a-z]{1,4}\.(com|org)",
    r"(red|green|blue)( and (red|blue))*",
    r"\S.{0,9}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_replies_match_their_pattern(vocabulary: Vocabulary, pattern: str) -> None:
    for reply in replies(regex(vocabulary, pattern), vocabulary):
        assert re.fullmatch(pattern, reply), reply


TEXTS = [
    "yes",
    "yes, please",
    "no",
    "no",
    "a/b",
    "C++ (1.0)?",
    "two  blanks",
    "line\nbreak\ttab",
    "ä€😀",
    "[x]{2}^$|\\",
]


def test_replies_are_one_of_the_choices(vocabulary: Vocabulary) -> None:
    found = set(replies(choices(vocabulary, TEXTS), vocabulary, 120))
    assert found <= set(TEXTS)
    assert len(found) > 5
    for text in TEXTS:  # each one is possible
        assert drawn(choices(vocabulary, [text]), vocabulary, 0) == text


TREE = {
    "type": "object",
    "properties": {"left": {"$ref": "#/$defs/tree"}, "leaf": {"type": "boolean"}},
    "additionalProperties": False,
}
SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "count": {"type": "integer", "minimum": 0},
            "colour": {"enum": ["red", "dark blue"]},
        },
        "required": ["name", "colour"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "number", "minimum": -5, "maximum": 5}, "minItems": 1, "maxItems": 3},
    {"$defs": {"tree": TREE}, "$ref": "#/$defs/tree"},
    {"anyOf": [{"const": None}, {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}, {"type": "integer"}]},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["object", "array", "tree", "any"])
def test_replies_are_valid_by_their_schema(vocabulary: Vocabulary, schema: dict[str, Any]) -> None:
    validator = Draft202012Validator(schema)
    for reply in replies(json_schema(vocabulary, schema), vocabulary, 20):
        validator.validate(json.loads(reply))
        assert not re.search(r"\n {17}|  {17}|\n\s*\n", re.sub(r'"[^"]*"', "s", reply)), "blanks without a bound"


def test_any_object(vocabulary: Vocabulary) -> None:
    constraint = json_object(vocabulary)
    found = [reply for seed in range(60) if (reply := drawn(constraint, vocabulary, seed, 150)) is not None]
    assert len(found) > 5
    assert all(isinstance(json.loads(reply), dict) for reply in found)


def test_replies_follow_their_grammar(vocabulary: Vocabulary) -> None:
    found = replies(
        grammar(vocabulary, 'start: sum\nsum: NUMBER | "(" sum "+" sum ")"\nNUMBER: /[0-9]/'), vocabulary, 30
    )
    assert any("+" in reply for reply in found)
    for reply in found:
        assert re.fullmatch(r"[0-9+()]+", reply)
        assert eval(reply) >= 0


def test_masks_are_those_of_a_search_through_all_texts(byte_level: Vocabulary) -> None:
    """A token may come where some text goes on with its bytes, and a reply may end where it is one of the texts."""
    texts = ["red", "red square", "reds", "no", "wall", "ä"]
    constraint = choices(byte_level, texts)
    spelt = [byte_level.tokens.decode_bytes([n]) for n in range(tiny.LANGUAGE.vocab_size)]
    wanted = [text.encode() for text in texts]
    seen: set[bytes] = set()
    stack: list[list[int]] = [[]]
    while stack:
        ids = stack.pop()
        begun = b"".join(spelt[n] for n in ids)
        if begun in seen:
            continue
        seen.add(begun)
        expected = np.zeros(byte_level.size, bool)
        for token, piece in enumerate(spelt):
            if piece and any(text.startswith(begun + piece) for text in wanted):
                expected[token] = True
                stack.append([*ids, token])
        expected[list(byte_level.stop_tokens)] = begun in wanted
        followed = constraint.begin()
        for token in ids:
            followed.take(token)
        allowed = followed.allowed()
        if len(left := [text for text in wanted if text.startswith(begun)]) > 1 or begun in wanted:
            assert allowed.tolist() == expected.tolist(), (begun, left)
        else:  # of several ways to spell the only text that is left the tokenizer's own is taken
            assert allowed.sum() == 1, (begun, left)
            assert not (allowed & ~expected).any(), (begun, left)
    assert len(seen) > 15


def test_control_tokens_and_padding_are_never_allowed(byte_level: Vocabulary) -> None:
    start = byte_level.tokenizer.control("<|im_start|>")
    padding = tiny.LANGUAGE.vocab_size
    assert not byte_level.words[[start, *range(padding, byte_level.size)]].any()
    for named in ("<|im_start|>", f"<[{padding}]>"):
        with pytest.raises(BadInput, match="grammar: expected a form that words of the vocabulary can"):
            grammar(byte_level, f"start: {named}")
    allowed = grammar(byte_level, f"start: <[0-{byte_level.size - 1}]>").begin().allowed()
    assert (allowed == byte_level.words).all()
    assert allowed.sum() == padding - 3 - 1  # three control tokens, and the byte 255, which is in no text


def test_a_token_that_may_not_come_is_refused(byte_level: Vocabulary) -> None:
    constraint = choices(byte_level, ["yes", "no"])
    stop = min(byte_level.stop_tokens)
    outside = [int(n) for n in (~constraint.begin().allowed()).nonzero()[0]]
    assert stop in outside
    for token in [*outside, -1, byte_level.size, 10**12]:
        with pytest.raises(BadInput, match=f"^choices: expected one of the tokens that may come, got {token}$"):
            constraint.begin().take(token)


def test_replies_do_not_meet(byte_level: Vocabulary) -> None:
    constraint = choices(byte_level, ["yes", "no"])
    first, second = constraint.begin(), constraint.begin()
    before = second.allowed()
    first.take(byte_level.tokenizer.encode("no")[0])
    assert (second.allowed() == before).all()
    assert (first.allowed() != before).any()


def test_without_the_library_one_line_names_the_extra(byte_level: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(VlmError) as error:
        choices(Vocabulary(byte_level.tokenizer, byte_level.size, byte_level.stop_tokens), ["yes"])
    assert str(error.value) == "replies of a given form need llguidance (pip: vlm[serve])"


def test_a_tokenizer_that_says_no_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"yes": 0, "</s>": 1}, unk_token="</s>")).save(str(path))
    with pytest.raises(BadInput, match="tokenizer: expected one whose replies can be constrained, got: "):
        choices(Vocabulary(TextTokenizer(path), 2, frozenset({1})), ["yes"])

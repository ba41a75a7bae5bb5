"""Text as tokens come: nothing that was told is taken back, and stop strings end a reply wherever they are cut."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import tiny

from vlm.conversation.tokenizer import TextTokenizer
from vlm.engine.texts import ReplyText


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer(tiny.write_tokenizer(Path(tmp_path_factory.mktemp("tokenizer")) / "tokenizer.json"))


TEXTS = ["A red square on the wall.", "Straße, 猫 and 🐈‍⬛!", "\n\n two  spaces ", "é" * 5, ""]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_text(tokenizer: TextTokenizer, text: str) -> None:
    reply = ReplyText(tokenizer.decode)
    pieces = [reply.take(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + reply.end() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_character_that_never_ends_is_told_at_the_end(tokenizer: TextTokenizer) -> None:
    first, *_ = tokenizer.encode("猫")
    reply = ReplyText(tokenizer.decode)
    assert reply.take(first) == ""
    assert reply.end() == "\N{REPLACEMENT CHARACTER}"


SAID = ["one two three", "a##b", "aab", "猫 and 猫"]
STOPS = [("two",), ("##", "b"), ("ab",), ("猫",), ("and", "e t"), ("nothing",)]


@pytest.mark.parametrize(("text", "stop"), list(itertools.product(SAID, STOPS)))
def test_a_reply_ends_before_the_first_stop_string(tokenizer: TextTokenizer, text: str, stop: tuple[str, ...]) -> None:
    reply, said = ReplyText(tokenizer.decode, stop), ""
    for token in tokenizer.encode(text):
        said += reply.take(token)
        assert not any(word in said for word in stop)
    said += reply.end()
    ends = [text.index(word) for word in stop if word in text]
    assert said == (text[: min(ends)] if ends else text)
    assert reply.stopped == bool(ends)

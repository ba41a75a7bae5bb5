"""What a model reads of a text is said, and what is no list of texts is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from vlm.conversation.texts import check_texts, warn_of_losses
from vlm.conversation.tokenizer import TextTokenizer
from vlm.errors import BadInput

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "in", "the", "snow", "."]


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    """Words of a BERT, each text between [CLS] and [SEP]."""
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(WORDS[:4])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    return TextTokenizer(tmp_path / "tokenizer.json")


def test_a_long_text_keeps_the_token_that_ends_it(tokenizer: TextTokenizer) -> None:
    (ids,) = tokenizer.encode_batch(["the cat in the snow . a dog"], special=True, limit=6)
    assert [WORDS[i] for i in ids] == ["[CLS]", "the", "cat", "in", "the", "[SEP]"]
    assert tokenizer.encode_batch(["a cat"], special=True, limit=4) == [[2, 4, 5, 3]]
    assert tokenizer.encode_batch(["a cat in the snow"], limit=3) == [[4, 5, 7]]


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("a cat", []),
        ("the cat in the snow . a dog", ["10 tokens, of which the first 6 are read"]),
        ("猫", ["none of its words is in the model's vocabulary: it is like any other such text"]),
        ("a bicycle", ["1 words are not in the model's vocabulary"]),
        ("x y z a", ["3 words are not in the model's vocabulary"]),
    ],
)
def test_what_is_lost_of_a_text(tokenizer: TextTokenizer, text: str, notes: list[str]) -> None:
    (tokens,) = tokenizer.text_tokens([text], 6, special=True)
    assert tokens.notes() == notes


def test_losses_are_warnings_added_up() -> None:
    with pytest.warns(UserWarning, match=r"text 'a b': 12 tokens, of which the first 6 are read \(1 more like it\)"):
        warn_of_losses(["a b", "fine", "c"], [["12 tokens, of which the first 6 are read"], [], ["9 tokens, of which "
                       "the first 6 are read"]])  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("cat", "texts: expected a list of texts, got a single text"),
        (None, "texts: expected a list of texts, got NoneType"),
        ({"a": 1}, "texts: expected a list of texts, got dict"),
        (["a", None], "text 2: expected a text, got NoneType"),
        (["a", " "], "text 2 is empty; expected some words"),
        (["caf\udce9"], "text 1: expected a text, got half a character at 3"),
    ],
)
def test_what_is_no_list_of_texts(texts: Any, words: str) -> None:
    with pytest.raises(BadInput) as error:
        check_texts(texts)
    assert words in str(error.value)
    assert str(error.value).encode()

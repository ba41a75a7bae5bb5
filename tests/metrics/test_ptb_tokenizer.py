"""The PTB tokenizer against what CoreNLP 3.4.1 gave."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from random import Random

import pytest

from vlm.metrics import ptb_tokenizer
from vlm.metrics._ptb_rules import rules
from vlm.metrics.ptb_tokenizer import PUNCTUATION, lex, tokenize


def test_equals_the_reference_on_hostile_strings(golden: Path) -> None:
    cases = json.loads((golden / "metrics/ptb_tokens.json").read_text())["cases"]
    assert [[text, tokenize(text)] for text, _ in cases] == cases


def test_plain_captions_take_a_short_way_that_changes_nothing(golden: Path) -> None:
    texts = [
        "A dog's \"ball\", isn't it?",
        "plan B. The end",
        "Mr. Smith (left) co. x",
        "'tis the o'clock - no",
        "x. A",
    ]
    texts += [text for text, _ in json.loads((golden / "metrics/ptb_tokens.json").read_text())["cases"]]
    for text in texts:
        wanted = [t for t in map(str.lower, lex(text)) if t not in PUNCTUATION]
        assert tokenize(text) == " ".join(wanted).rstrip().split(" ") if wanted else not tokenize(text), text


def test_a_no_break_space_is_kept_at_the_beginning_and_lost_at_the_end() -> None:
    """As in the reference, whose Python strips the end of a line of tokens, and no more."""
    assert tokenize(" \xa0.net ") == ["\xa0.net"]
    assert tokenize("see http://x.com/ab\xa0") == ["see", "http://x.com/ab"]


@pytest.mark.parametrize("line_break", ["\r", "\n", "\r\n", "\v", "\f", "\u2028", "\u2029"])
def test_a_line_break_is_a_space(line_break: str) -> None:
    assert tokenize(f"first{line_break}half") == ["first", "half"]


@pytest.mark.parametrize("text", ["", " ", "\n", "...", "?!.", "\U0001f600", "\ud800", "\x00", "\u200b"])
def test_what_has_no_words_has_few_tokens(text: str) -> None:
    assert tokenize(text) in ([], ["?!"], ["?!."])


def test_takes_any_character() -> None:
    every = "".join(map(chr, range(0x3000)))
    assert all(isinstance(token, str) and token for token in tokenize(every))


def test_rules_that_look_ahead_have_two_groups() -> None:
    assert {rule.pattern.groups for ascii_only in (True, False) for rule in rules(ascii_only)} == {2}


def test_rules_for_ascii_give_what_all_rules_give(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = json.loads((golden / "metrics/ptb_tokens.json").read_text())["cases"]
    texts = [text for text, _ in cases if text.isascii()]
    quick = [lex(text) for text in texts]
    monkeypatch.setattr(ptb_tokenizer, "rules", lambda ascii_only: rules())
    assert quick == [lex(text) for text in texts]
    assert len(texts) > 100


def test_equals_the_reference_on_twenty_thousand_captions(shared: Path) -> None:
    with gzip.open(shared / "golden/metrics/ptb_tokens_20k.tsv.gz", "rt", encoding="utf-8", newline="\n") as lines:
        pairs = [line.rstrip("\n").split("\t") for line in lines]
    assert len(pairs) == 20_000
    assert [(raw, wanted) for raw, wanted in pairs if ptb_tokenizer.joined(raw) != wanted] == []


def test_word_by_word_gives_what_the_whole_line_gives() -> None:
    """The fast path of plain captions, also with marks that stand alone, against the rules over the whole line."""
    words = (
        "a dog The the B it's don't cannot gonna Mr. co. Inc. e-mail plan no No. I A. dogs' 'em etc. St. vs. (wet) "
        "dog's. intl't. Mr.'s cannot's gimme, DOG'S fig. Pte. mtg. x! o's 5 12 3/4 (555) 555-1234 - & <b c> p.m. 'n"
    ).split()
    random = Random(1)
    plain = 0
    for _ in range(6000):
        line = random.choice([" ", " ", "  "]).join(random.choices([*words, ",", "."], k=random.randint(1, 9)))
        whole = [token for token in map(str.lower, lex(line.strip(" "))) if token not in PUNCTUATION]
        assert tokenize(line) == whole, line
        plain += all(word in ptb_tokenizer._WORDS for word in line.split(" "))
    assert 300 < plain < 5000


def test_every_regular_word_is_one_token() -> None:
    """Words of letters alone skip the rules: so must every one that some rule names."""
    named = {word for rule in rules() for word in re.findall("[A-Za-z]+", rule.pattern.pattern)}
    for word in (*named, "cannot", "pte", "ppty", "mfg", "an", "a"):
        for form in (word, word.capitalize(), word.upper()):
            for end in ("", "'s", ".", ",", "!", "'s."):
                whole = [token for token in map(str.lower, lex(form + end)) if token not in PUNCTUATION]
                assert tokenize(form + end) == whole, form + end

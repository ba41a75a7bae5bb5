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
from vlm.metrics.caption import ptb_tokenize, rouge_l
from vlm.metrics.ptb_tokenizer import PUNCTUATION, lex, tokenize
from vlm.metrics.score import at_spaces, corpus, tokenized


def test_equals_the_reference_on_hostile_strings(golden: Path) -> None:
    cases = json.loads((golden / "metrics/ptb_tokens.json").read_text())["cases"]
    assert [[text, tokenize(text)] for text, _ in cases] == cases


LISTS = [
    (["it is plan B.", "A man runs", "x"], ["it is plan b", "a man runs", "x"]),
    (["it is plan B.", "a man runs", "x"], ["it is plan b.", "a man runs", "x"]),
    (["it is plan B.", "Zebras run", "x"], ["it is plan b.", "zebras run", "x"]),
    (["it is plan B. ", " The dog", "x"], ["it is plan b", "the dog", "x"]),
    (["vitamin c.", "Mr. Smith", "x"], ["vitamin c", "mr. smith", "x"]),
    (["plan B.", "", "The dog"], ["plan b", "", "the dog"]),
    (["plan B.", " ", "", "The dog", "x"], ["plan b", "", "", "the dog", "x"]),
    (["plan B.", "A"], ["plan b.", "a"]),
    (["plan B.", "A", "x"], ["plan b", "a", "x"]),
    (["a B.", "The"], ["a b.", "the"]),
    (["plan B.", "<b> x", "x"], ["plan b", "<b> x", "x"]),
    (["made in the U.S.", "The dog", "s"], ["made in the u.s.", "the dog", "s"]),
    (["the No.", "5 dogs", "x"], ["the no.", "5 dogs", "x"]),
    (["the No.", "dogs", "x"], ["the no", "dogs", "x"]),
    (["the No.", " 5", "x"], ["the no", "5", "x"]),
    (["see fig.", "3/4", "x"], ["see fig.", "3/4", "x"]),
    (["x", "you've"], ["x", "you ve"]),
    (["you've", "x"], ["you 've", "x"]),
    (["you've"], ["you ve"]),
    (["x", "it's"], ["x", "it 's"]),
    (["first\rhalf B.", "The end", "x"], ["first half b", "the end", "x"]),
    ([], []),
    ([""], [""]),
]
"""Captions, and what CoreNLP 3.4.1's `PTBTokenizer -preserveLines -lowerCase` gives for them as one file, without
punctuation (of the carriage return as it does of a space)."""


@pytest.mark.parametrize(("texts", "wanted"), LISTS)
def test_a_list_is_read_as_one_text(texts: list[str], wanted: list[str]) -> None:
    assert ptb_tokenizer.joined_lines(texts) == wanted
    assert ptb_tokenize(texts) == wanted
    assert ptb_tokenizer.tokenize_lines(texts) == [line.split(" ") if line else [] for line in wanted]


def test_a_caption_alone_depends_on_nothing_else() -> None:
    assert tokenize("it is plan B.") == ["it", "is", "plan", "b."]
    assert tokenize("the No.") == ["the", "no"]
    assert tokenize("you've") == ["you", "'ve"]


def test_captions_that_end_plainly_are_the_same_alone_and_in_a_list(golden: Path) -> None:
    """All but the last, and those whose period the next decides."""
    texts = [text for text, _ in json.loads((golden / "metrics/ptb_tokens.json").read_text())["cases"]]
    open_end = re.compile(r"(?<![A-Za-z])(?:[A-Za-z]|art|ca|figs?|nos?|op|pp|prop)\.\s*\Z", re.IGNORECASE)
    for text, line in zip(texts, ptb_tokenizer.joined_lines([*texts, "x"]), strict=False):
        if not open_end.search(text):
            assert line == ptb_tokenizer.joined(text), text


def test_metrics_read_a_corpus_as_two_lists() -> None:
    """The hypothesis before "The end" loses its period, and is then what its reference says."""
    references, hypotheses = [["plan b"], ["the end"], ["x"]], ["plan B.", "The end", "x"]
    assert corpus(references, hypotheses)[0].hypothesis == ["plan", "b"]
    assert rouge_l(references, hypotheses).per_item == [1, 1, 1]
    wanted, said = tokenized(references, hypotheses)
    assert rouge_l(wanted, said, tokenizer=at_spaces) == rouge_l(references, hypotheses)
    assert corpus([["plan B.", "The"]], ["x"])[0].references == [["plan", "b."], ["the"]], "the last line has no end"
    assert corpus([["plan B.", "The end"], ["x"]], ["x", "y"])[0].references[0] == ["plan", "b"]


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
    assert ptb_tokenizer.joined_lines([raw for raw, _ in pairs]) == [wanted for _, wanted in pairs]


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

"""The VQA normaliser and the PTB tokenizer against plain restatements of their rules, on whatever comes to mind."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.metrics.caption import bleu, cider, ptb_tokenize, rouge_l
from vlm.metrics.protocols import PROTOCOLS
from vlm.metrics.ptb_tokenizer import PUNCTUATION, tokenize
from vlm.metrics.rouge import longest_common_subsequence
from vlm.metrics.vqa import anls, evalai_normalise, levenshtein, vqa_normalise

quick = settings(max_examples=150, deadline=None, database=None)

any_text = st.text(st.characters(), max_size=60)  # lone surrogates and control characters too
hostile = st.one_of(
    any_text,
    st.text("ab1.,'-!? \t\n\r\v\f\x00\x1c\x85\xa0\u00ad\u200b\u2028\u202e\ud800\udfff\ufffd\ufffe", max_size=40),
    st.text("\U0001f600\U0001f468\u200d\U0001f469\ufe0f\U0001f1e9\u0301\u05d0\u0627\u4e2d\u0e01e", max_size=40),
    st.text("<>&;/:@#$%()[]{}|\\*_=+~^`\"'.,-?!0a ", max_size=40),
)


# --- VQA v2: the official rules, one after the other, a character at a time ---

MARKS = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_WORDS = "none zero one two three four five six seven eight nine ten".split()
CONTRACTIONS = {"dont": "don't", "isnt": "isn't", "im": "im", "couldnt've": "couldn't've", "somebody'd": "somebodyd"}
vqa_words = st.sampled_from(
    [*DIGIT_WORDS, *CONTRACTIONS, "a", "an", "the", "A", "The", "TWO", "dog", "3", "2.5", "1,000", "x-ray", "u.s.", "."]
)
vqa_text = st.one_of(
    any_text,
    st.lists(st.one_of(vqa_words, st.sampled_from(list(MARKS + " .\t\n"))), max_size=12).map("".join),
    st.lists(st.one_of(vqa_words, st.sampled_from([*MARKS, "."])), max_size=8).map(" ".join),
)


def normalised(answer: str) -> str:
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    comma_in_number = any(
        a.isdecimal() and b == "," and c.isdecimal() for a, b, c in zip(answer, answer[1:], answer[2:], strict=False)
    )
    text = answer
    for mark in MARKS:
        deleted = comma_in_number or mark + " " in answer or " " + mark in answer
        text = text.replace(mark, "" if deleted else " ")
    kept, periods = "", 0
    for i, c in enumerate(text):
        followed = i + 1 < len(text) and text[i + 1].isdecimal()
        if c == "." and not followed and periods < 32:
            periods += 1
        else:
            kept += c
    words = []
    for word in kept.lower().split():
        if word in DIGIT_WORDS:
            word = str(max(0, DIGIT_WORDS.index(word) - 1))
        if word not in ("a", "an", "the"):
            words.append(word)
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


@quick
@given(vqa_text)
def test_the_vqa_normaliser_is_its_rules(answer: str) -> None:
    assert vqa_normalise(answer) == normalised(answer)


@quick
@given(vqa_text)
def test_evalai_lowers_first(answer: str) -> None:
    lowered = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    assert evalai_normalise(answer) == normalised(lowered)


@quick
@given(st.text("abc ", max_size=8), st.text("abc ", max_size=8))
def test_levenshtein_is_a_distance(a: str, b: str) -> None:
    def plain(x: str, y: str) -> int:
        if not x or not y:
            return len(x) + len(y)
        return min(plain(x[1:], y) + 1, plain(x, y[1:]) + 1, plain(x[1:], y[1:]) + (x[0] != y[0]))

    assert levenshtein(a, b) == levenshtein(b, a)
    if len(a) + len(b) <= 9:
        assert levenshtein(a, b) == plain(a, b)


@quick
@given(st.text("abc ", max_size=90), st.text("abc ", max_size=90))
def test_distances_of_longer_strings_equal_the_table(a: str, b: str) -> None:
    edits, common = list(range(len(b) + 1)), [0] * (len(b) + 1)
    for i, x in enumerate(a, start=1):
        before, edits = edits, [i]
        above, common = common, [0]
        for j, y in enumerate(b, start=1):
            edits.append(min(before[j] + 1, edits[j - 1] + 1, before[j - 1] + (x != y)))
            common.append(above[j - 1] + 1 if x == y else max(above[j], common[j - 1]))
    assert levenshtein(a, b) == edits[-1]
    assert longest_common_subsequence(list(a), list(b)) == common[-1]


def test_thousands_of_letters_take_no_minutes() -> None:
    start = time.perf_counter()
    assert anls("ab" * 10_000, ["b" + "ab" * 9_999 + "c"]) > 0.99
    assert rouge_l([["dog cat x " * 3_000]], ["cat dog y " * 3_000]).value > 0
    assert time.perf_counter() - start < 30  # a second; many minutes in a table


@quick
@given(hostile, st.lists(hostile, min_size=1, max_size=10))
def test_no_answer_breaks_a_protocol(prediction: str, answers: list[str]) -> None:
    for rule in PROTOCOLS.values():
        assert 0 <= rule(prediction, answers) <= 1
    assert anls(prediction, [*answers, prediction]) == 1


# --- PTB: what a plain caption's words become, and what is true of every string ---

HALVES = {"cannot": "can not", "gonna": "gon na", "wanna": "wan na", "gotta": "got ta", "lemme": "lem me"}
HALVES |= {"gimme": "gim me"}
ENDINGS = ["'s", "'m", "'d", "'re", "'ve", "'ll"]
lower = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)
plain_word = st.one_of(lower, lower.map(str.capitalize), st.sampled_from([*HALVES, "a", "I", "Cannot", "GONNA"]))
verbs = st.sampled_from(["is", "are", "do", "does", "was", "ca", "wo", "have", "DO", "Is"])
pieces = st.one_of(  # "(xx)" is a face
    plain_word.map(lambda w: (w, HALVES.get(w.lower(), w.lower()))),
    st.tuples(lower, lower).map(lambda pair: ("-".join(pair), "-".join(pair))),
    st.tuples(lower, st.sampled_from(ENDINGS)).map(lambda pair: ("".join(pair), " ".join(pair))),
    verbs.map(lambda v: (f"{v}n't", f"{v.lower()} n't")),
    plain_word.map(lambda w: (f'"{w}"', HALVES.get(w.lower(), w.lower()))),
    plain_word.filter(lambda w: w != "xx").map(lambda w: (f"({w})", f"-lrb- {HALVES.get(w.lower(), w.lower())} -rrb-")),
    st.sampled_from([("&", "&"), ("...", ""), ("--", ""), ("7", "7"), ("1950s", "1950s"), ("3.5", "3.5"), ("%", "%")]),
)
MARKED = ["", "", "", ",", ";", "!", "?"]


@quick
@given(st.lists(st.tuples(pieces, st.sampled_from(MARKED)), max_size=10))
def test_a_plain_caption_is_its_words(parts: list[tuple[tuple[str, str], str]]) -> None:
    """Words, hyphens, clitics, quotes and brackets between blanks; marks after a word vanish."""
    numbers = [raw for (raw, _), _ in parts if raw[0].isdigit()]
    if len(numbers) > 1:  # two in a row may be a telephone number, which is one token
        return
    caption = " ".join(raw + mark for (raw, _), mark in parts)
    assert tokenize(caption) == " ".join(tokens for (_, tokens), _ in parts).split()


@quick
@given(hostile)
def test_tokens_are_lower_case_words_without_blanks_or_punctuation(text: str) -> None:
    tokens = tokenize(text)
    assert tokens == tokenize(text)
    for token in tokens:
        assert token
        assert token == token.lower()
        assert not set(token) & set(" \t\n\r\v\f\u2028\u2029")
        assert token not in PUNCTUATION
    assert ptb_tokenize([text, ""]) == [" ".join(tokens), ""]


@quick
@given(hostile, st.sampled_from(["\r", "\v", "\f", "\u2028", "\u2029", "\n"]), hostile)
def test_a_line_break_is_a_blank(before: str, line_break: str, after: str) -> None:
    assert tokenize(before + line_break + after) == tokenize(before + " " + after)


@settings(quick, max_examples=50)
@given(st.lists(st.tuples(hostile, st.lists(hostile, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_no_caption_breaks_a_metric(items: list[tuple[str, list[str]]]) -> None:
    hypotheses, references = [h for h, _ in items], [r for _, r in items]
    for score in (*bleu(references, hypotheses), rouge_l(references, hypotheses), cider(references, hypotheses)):
        assert all(0 <= value <= 10 + 1e-9 for value in [score.value, *score.per_item])


LONG = [
    "a",
    "a ",
    "a.",
    "(",
    "<a ",
    "-",
    "'",
    "1",
    "1 ",
    "a@",
    "&",
    "\ud800",
    "\U0001f600",
    "\u202e",
    "\x00",
    "a-",
    "n't ",
]


@pytest.mark.parametrize("unit", LONG)
def test_a_long_string_is_no_trap(unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    for function in (tokenize, vqa_normalise, evalai_normalise):
        found: Any = function(text)
        assert len(found) <= 2 * len(text)

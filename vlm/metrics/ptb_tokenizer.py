"""Penn Treebank tokens of a caption, as the COCO caption evaluation counts them, without Java.

The reference is `pycocoevalcap.tokenizer.ptbtokenizer.PTBTokenizer`: CoreNLP 3.4.1's `PTBTokenizer -preserveLines
-lowerCase`, then every token of `PUNCTUATION` is dropped. BLEU, ROUGE-L, METEOR and CIDEr are all defined on these
tokens, so a score compares with a published one only if they are the same. The rules (`_ptb_rules`) were written from
that program's observable behaviour.

What is kept although it looks odd, because the reference does it: brackets become words (`-lrb-`), a pound sign
becomes `#`, a euro sign `$`, `foo.,` keeps its period, emoji and whatever else is outside its alphabet vanish, and a
phone number or a fraction written with a space is one token (with a no-break space inside).

**On a list** (`tokenize_lines`, `joined_lines`) the reference reads all captions as one file, a caption a line, and so
does this: what becomes of a period after a lone letter, or after "No.", at the end of a caption depends on how the next
caption begins, and the last caption lacks the line end that some rules look for ("you've"). Metrics tokenise a corpus
so, all references as one list and all hypotheses as another.

**A caption alone** (`tokenize`, `joined`) is tokenised as a line in the middle of a file that a blank line follows, so
that what it gives depends on nothing else.

One thing is done differently: a carriage return, vertical tab, form feed or Unicode line separator inside a caption
gives every later caption its predecessor's tokens in the reference; here they are spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from vlm.metrics._ptb_rules import ABBREVIATIONS, HALVED, OPEN_END, OPEN_END_LETTERS, rules

# Dropped after tokenising. The tokens are lower-case by then, so the bracket names never match; that is the reference.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

_BLANK = re.compile("[ \t\xa0\u2000-\u200a\u3000]+")
_LINE_BREAK = re.compile("\r\n|[\n\r\v\f\u2028\u2029]")
# Captions of such words only are tokenised word by word: no rule then spans a space or depends on the next word (what
# becomes of a lone letter's period does). A comma may stand alone, and one mark at the end, as in data sets whose
# captions are tokenised already.
_PLAIN = re.compile(r"""[("']*(?!(?:.*[^A-Za-z])?[A-Za-z]\.)[A-Za-z][A-Za-z'-]*[.,!?;:)"']*""")
# A plain word that is itself a token, unless it is halved or an abbreviation.
_REGULAR = re.compile(r"([A-Za-z]{2,}|[Aa])('s)?[,!?;:.]?")


def lex(text: str, rest: str = "\n\n") -> list[str]:
    """PTB tokens of one caption with punctuation and case kept, as `PTBTokenizer -preserveLines` prints them.

    `rest` is what follows it in the file, its line end first.
    """
    text = _LINE_BREAK.sub(" ", text)
    end = len(text)
    text += rest
    table = rules(text.isascii())
    tokens = []
    position = 0
    while position < end:
        blank = _BLANK.match(text, position)
        longest, found = blank.end() - position if blank else 0, None
        for rule in table:
            match = rule.pattern.match(text, position)
            if match is not None and (length := max(match.end(1), match.end(2)) - position) > longest:
                longest, found = length, (match, rule.tidy)
        if found is None:  # blanks, or a character outside the alphabet
            position += max(1, longest)
            continue
        match, tidy = found
        position = match.end(1)
        if token := tidy(match[1]) if tidy else match[1]:
            tokens.append(token)
    return tokens


def tokenize(text: str) -> list[str]:
    """Lower-cased PTB tokens of one caption without punctuation. Takes any string; an empty one gives an empty list."""
    tokens = joined(text)
    return tokens.split(" ") if tokens else []


def tokenize_lines(texts: Sequence[str]) -> list[list[str]]:
    """The tokens of each caption of a list as the reference gives them for the whole list."""
    return [line.split(" ") if line else [] for line in joined_lines(texts)]


def joined_lines(texts: Sequence[str]) -> list[str]:
    """The tokens of `tokenize_lines` with a space between them."""
    lines = [joined(text) for text in texts[:-1]]
    for i in range(len(lines)):
        end = texts[i].rstrip()
        if end.endswith(".") and OPEN_END.search(end[-OPEN_END_LETTERS:]):
            lines[i] = _filtered(lex(texts[i], _rest(texts, i)))[:-1]
    return lines + [_filtered(lex(text, ""))[:-1] for text in texts[-1:]]


def _rest(texts: Sequence[str], i: int) -> str:
    """What follows a caption in the file, up to the end of the next line that is not blank."""
    rest = "\n"
    for number in range(i + 1, len(texts)):
        line = _LINE_BREAK.sub(" ", texts[number])
        rest += line + ("\n" if number + 1 < len(texts) else "")
        if _BLANK.sub("", line):
            break
    return rest


def joined(text: str) -> str:
    """The tokens of `tokenize` with a space between them, which no token has inside."""
    words = text.strip(" ").split(" ")
    plain = words[:-1] if len(words) > 1 and words[-1] in (".", "!", "?") else words
    try:
        return "".join(map(_WORDS.__getitem__, plain))[:-1]
    except _NotPlain:
        return (_line(text) if "<" in text else _around_odd(words))[:-1]  # a tag may hold anything


def _around_odd(words: list[str]) -> str:
    """`_line` of these words: those that are not plain with their neighbours, as no rule sees further."""
    odd = [not _is_plain(word) for word in words]
    near = [any(odd[max(i - 1, 0) : i + 2]) for i in range(len(words))]
    lines: list[str] = []
    for together, run in groupby(zip(near, words, strict=True), key=itemgetter(0)):
        some = [word for _, word in run]
        lines += [_line(" ".join(some))] if together else map(_WORDS.__getitem__, some)
    return "".join(lines)


def _is_plain(word: str) -> bool:
    try:
        return bool(_WORDS[word])
    except _NotPlain:
        return False


@lru_cache(maxsize=1 << 14)
def _line(text: str) -> str:
    """What `_filtered` gives for a line alone."""
    return _filtered(lex(text.strip(" ")))


def _filtered(found: Sequence[str]) -> str:
    """Each token with a space behind it, lower-case and without punctuation."""
    tokens = [raw.lower() for raw in found]
    if tokens:  # the reference strips each line of tokens, and with it a no-break space that ends the last
        tokens[-1] = tokens[-1].rstrip()
    return "".join(token + " " for token in tokens if token and token not in PUNCTUATION)


class _NotPlain(Exception):
    """A word that cannot be tokenised without its neighbours."""


class _Words(dict[str, str]):
    """What `_line` gives for the plain words met before; others raise `_NotPlain`."""

    def __missing__(self, word: str) -> str:
        if len(self) >= 1 << 16:
            self.clear()
        self[word] = line = _word(word)
        return line


def _word(word: str) -> str:
    if regular := _REGULAR.fullmatch(word):
        stem, clitic = regular[1].lower(), regular[2]
        if stem not in HALVED and not (word[-1] == "." and stem in ABBREVIATIONS):
            return f"{stem} {clitic} " if clitic else f"{stem} "
    if _PLAIN.fullmatch(word):
        return _line(word)
    if word in ("", ","):
        return ""
    raise _NotPlain


_WORDS = _Words()


def forget() -> None:
    """Empty the cache of words, as it is in a new process."""
    _WORDS.clear()
    _line.cache_clear()

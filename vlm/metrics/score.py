"""What a caption metric returns, and the tokenised corpus the caption metrics share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlm.errors import BadInput
from vlm.metrics.ptb_tokenizer import joined_lines, tokenize_lines

Tokenizer = Callable[[str], list[str]]


@dataclass(frozen=True)
class Score:
    """A metric's value over a corpus and for each of its items, in the order they were given."""

    value: float
    per_item: list[float]


@dataclass(frozen=True)
class Item:
    """One hypothesis and its references, as tokens."""

    hypothesis: list[str]
    references: list[list[str]]


def corpus(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], tokenizer: Tokenizer | None = None
) -> list[Item]:
    """Tokenise a corpus: `references[i]` are the reference captions of `hypotheses[i]`.

    Without a tokenizer all hypotheses are one list for the PTB tokenizer and all references another, as in the COCO
    caption evaluation.

    Raises `BadInput` where the two differ in length, the corpus is empty, an item has no reference, or a single string
    stands where a list of references is expected.
    """
    if len(references) != len(hypotheses):
        raise BadInput(f"{len(hypotheses)} hypotheses for {len(references)} lists of references; expected one each")
    if not hypotheses:
        raise BadInput("no captions to score; expected at least one hypothesis")
    for i, refs in enumerate(references):
        if isinstance(refs, str):
            raise BadInput(f"references of item {i} are one string; expected a list of strings")
        if not refs:
            raise BadInput(f"item {i} has no references; expected at least one")
    flat = [reference for refs in references for reference in refs]
    if tokenizer is None:
        said, wanted = tokenize_lines(hypotheses), iter(tokenize_lines(flat))
    else:
        said, wanted = [tokenizer(text) for text in hypotheses], map(tokenizer, flat)
    return [Item(own, [next(wanted) for _ in refs]) for own, refs in zip(said, references, strict=True)]


def tokenized(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """References and hypotheses as `corpus` tokenises them, each a text whose tokens `at_spaces` takes apart: so that
    several metrics tokenise once."""
    flat = iter(joined_lines([reference for refs in references for reference in refs]))
    return [[next(flat) for _ in refs] for refs in references], joined_lines(hypotheses)


def at_spaces(text: str) -> list[str]:
    """The tokens of a text of `tokenized`; a no-break space is inside of one."""
    return text.split(" ") if text else []


def words(tokens: list[str]) -> list[str]:
    """Tokens with a no-break space inside ("3 1/2", "555 1234") taken apart, as BLEU and CIDEr count them.

    The reference joins the tokens and BLEU and CIDEr split that string at any Unicode white space; ROUGE-L splits it at
    the space only and so keeps such a token whole.
    """
    return " ".join(tokens).split()


def ngrams(tokens: list[str], longest: int) -> dict[tuple[str, ...], int]:
    """How often each n-gram of 1 to `longest` tokens occurs."""
    counts: dict[tuple[str, ...], int] = {}
    for n in range(1, longest + 1):
        for i in range(len(tokens) - n + 1):
            gram = tuple(tokens[i : i + n])
            counts[gram] = counts.get(gram, 0) + 1
    return counts

"""Texts that a caller hands over: whether they are a list of texts, and what a model loses of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from vlm.errors import BadInput
from vlm.notes import Notes

SHOWN = 40
"""Characters of a text that stand for it in a note."""


def check_texts(texts: Sequence[str], what: str = "text") -> None:
    """Raise `BadInput` unless this is a list of texts with something in each; `what` is what one is called."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        one = "a single text" if isinstance(texts, str) else type(texts).__name__
        raise BadInput(f"{what}s: expected a list of texts, got {one}")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise BadInput(f"{what} {number}: expected a text, got {type(text).__name__}")
        check_text(text, f"{what} {number}")


def check_text(text: str, where: str) -> None:
    """Raise `BadInput` for an empty text, and for one with half a character in it (a lone surrogate)."""
    if not text.strip():
        raise BadInput(f"{where} is empty; expected some words")
    check_characters(text, where)


def check_characters(text: str, where: str) -> None:
    """Raise `BadInput` for half a character (a lone surrogate), as bytes that are no UTF-8 become on a command line."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"{where}: expected a text, got half a character at {error.start} ({text[error.start]!a})"
        ) from None


def add_losses(notes: Notes, texts: Sequence[str], lost: Sequence[Sequence[str]]) -> None:
    """What is `lost` of each text, as notes."""
    for text, lines in zip(texts, lost, strict=True):
        for line in lines:
            notes.add(f"text {text if len(text) <= SHOWN else text[:SHOWN] + '...'!r}", line)


def warn_of_losses(texts: Sequence[str], lost: Sequence[Sequence[str]]) -> None:
    """The same as warnings, one a kind of loss, at whoever called the caller."""
    notes = Notes()
    add_losses(notes, texts, lost)
    for line in notes.lines():
        warnings.warn(line, stacklevel=3)

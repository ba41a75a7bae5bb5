"""POPE: is an object in the picture, yes or no (Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm.errors import BadInput


@dataclass(frozen=True)
class PopeScore:
    """Shares of the questions; "yes" is the positive class. A ratio without cases is 0."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float


def pope_answer(response: str) -> str:
    """Read a response as "yes" or "no", as `evaluate.py` of RUCAIBox/POPE does.

    "no" if the text before the first period, without commas, has the word `No`, `no` or `not` between spaces; "yes"
    otherwise, so an empty response, "NO", "no!" and "Nope" all count as yes. That is the reference.
    """
    words = response.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def pope(responses: Sequence[str], labels: Sequence[str]) -> PopeScore:
    """Accuracy, precision, recall, F1 and share of "yes" of raw responses against labels ("yes" or "no")."""
    if len(responses) != len(labels) or not labels:
        raise BadInput(f"{len(responses)} responses for {len(labels)} labels; expected one each and at least one")
    if bad := set(labels) - {"yes", "no"}:
        raise BadInput(f"label {min(bad)!r}; expected yes or no")
    said = [pope_answer(response) == "yes" for response in responses]
    true = [label == "yes" for label in labels]
    hits = sum(s and t for s, t in zip(said, true, strict=True))
    right = sum(s == t for s, t in zip(said, true, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(true) if any(true) else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return PopeScore(right / len(true), precision, recall, f1, sum(said) / len(said))

"""Reading one small data set through a card, and what a refusal must say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm.datasets.examples import DatasetCard, Example
from vlm.errors import BadInput

QUESTION = {"image": "i", "question": "q", "answers": "a"}
"""The fields of `row`."""


def row(**keys: Any) -> dict[str, Any]:
    return {"i": "0.png", "q": "What?", "a": "that", **keys}


def card(annotations: str, **keys: Any) -> DatasetCard:
    given = {"name": "own", "about": "a.", "licence": "l", "source": "s", "folder": "own", "splits": {"test": None}}
    return DatasetCard.model_validate({**given, "annotations": annotations, **keys})


def read(home: Path, annotations: str, report: Callable[[str], None] = print, **keys: Any) -> list[Example]:
    return card(annotations, **keys).read(home.parent, "test", report=report)


def refused(home: Path, words: str, annotations: str, **keys: Any) -> None:
    """One line that names the file or the data set and has `words` in it."""
    with pytest.raises(BadInput) as caught:
        read(home, annotations, **keys)
    message = str(caught.value)
    assert words in message
    assert "own" in message
    assert "\n" not in message

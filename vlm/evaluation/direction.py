"""Which way of a figure or score is better, told from its name."""

from __future__ import annotations

import re
from typing import Literal

Direction = Literal["up", "down", "none"]
_DOWN = re.compile(r"(^|[_\W])(rank|loss|error|wer|cer|perplexity|unreadable)s?($|[_\W])", re.IGNORECASE)
_NEUTRAL = re.compile(r"(^|[_\W])(confidence|words|length|tokens|seconds|start|end)($|[_\W])", re.IGNORECASE)


def direction(name: str) -> Direction:
    """Whether more of it is better ("up"), worse ("down"), or neither."""
    return "none" if _NEUTRAL.search(name) else "down" if _DOWN.search(name) else "up"


def is_rank(name: str) -> bool:
    return re.search(r"(^|[_\W])rank($|[_\W])", name, re.IGNORECASE) is not None

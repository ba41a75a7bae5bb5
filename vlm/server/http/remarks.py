"""What a request's line in a log says beside its address and status: who asked, what was changed."""

from __future__ import annotations

from typing import Any

from starlette.types import Scope

REMARKS = "vlm.remarks"
"""In a request's scope, where lines are written at all."""
MOST = 100
"""Ids in a line."""


def remark(scope: Scope, **about: Any) -> None:
    """Lists are cut, and their length is kept."""
    if (remarks := scope.get(REMARKS)) is not None:
        for key, value in about.items():
            if isinstance(value, list) and len(value) > MOST:
                remarks[f"{key}_count"], value = len(value), value[:MOST]
            remarks[key] = value

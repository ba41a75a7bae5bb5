"""Entries read page by page, and changed or deleted by what they say of themselves. N entries, D width."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from vlm.index.base import Index, Metadata, Where
from vlm.index.filters import compiled

Row = tuple[str, Metadata]


def page(index: Index, limit: int, after: str | None, where: Where | None, ids: Sequence[str] | None) -> list[Row]:
    """The first `limit` entries after an id, in the order of ids' code points. Raises `BadInput` for a bad filter."""
    fits = compiled(where)
    if ids is not None:
        known = index.known(ids)
        rows = [(id, known[id]) for id in sorted(known) if (after is None or id > after) and fits(known[id])]
        return rows[:limit]
    if where is None:
        first = heapq.nsmallest(limit, (id for id in index if after is None or id > after))
        known = index.known(first)
        return [(id, known[id]) for id in first if id in known]
    found = ((id, row) for id, row in index.items() if (after is None or id > after) and fits(row))
    return heapq.nsmallest(limit, found, key=lambda row: row[0])


def matching(index: Index, ids: Sequence[str] | None, where: Where | None) -> dict[str, Metadata]:
    """Entries that are named, or that fit; of both those that are named and fit."""
    fits = compiled(where)
    if ids is not None:
        return {id: row for id, row in index.known(list(dict.fromkeys(ids))).items() if fits(row)}
    return {id: row for id, row in index.items() if fits(row)}


def patched(before: Metadata, patch: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `patch` take the place of those there were, and null removes one (RFC 7396, of the first level)."""
    after = {**before, **patch}
    return {key: value for key, value in after.items() if not (key in patch and value is None)}

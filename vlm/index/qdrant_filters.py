"""Filters in Qdrant's words: what they let through is at least what `filters.matches` does, which is asked as well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from vlm.index.base import Where


def at_least(where: Where | None) -> models.Filter | None:
    """A filter that holds for every entry that `where` fits, and for some more; `None` where it would for all."""
    terms = [] if where is None else [_term(key, value) for key, value in where.items()]
    must = [term for term in terms if term is not None]
    return models.Filter(must=must) if must else None


def _term(key: str, value: Any) -> models.Condition | None:
    if key == "or":
        return _any([at_least(choice) for choice in value])
    # A key with a dot may be a path or a key as it is; a path may lead into lists, which Qdrant writes otherwise.
    if key == "not" or not re.fullmatch(r"\w+", key, re.ASCII):
        return None
    at = f"metadata.{key}"
    if not isinstance(value, Mapping):
        return _equals(at, value)
    said = [term for name, given in value.items() if (term := _operator(at, name, given)) is not None]
    return models.Filter(must=said) if said else None


def _operator(at: str, name: str, given: Any) -> models.Condition | None:
    if name == "in" and given:
        return _any([_equals(at, value) for value in given])
    if name in ("gt", "gte", "lt", "lte") and _is_number(given):
        # The ends are kept in: two numbers may differ here and be one double there.
        wide = models.Range(gte=given) if name[0] == "g" else models.Range(lte=given)
        return models.FieldCondition(key=at, range=wide)
    return None


def _any(terms: Sequence[models.Condition | None]) -> models.Filter | None:
    said = [term for term in terms if term is not None]
    return models.Filter(should=said) if len(said) == len(terms) else None


def _equals(at: str, value: Any) -> models.Condition | None:
    if _is_number(value):
        return models.FieldCondition(key=at, range=models.Range(gte=value, lte=value))
    if isinstance(value, (bool, str)):
        return models.FieldCondition(key=at, match=models.MatchValue(value=value))
    return None


def _is_number(value: Any) -> bool:
    """Whether a double holds it, whole."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53

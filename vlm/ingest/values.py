"""What a source says of an item, as metadata: JSON's types, and a note on what does not fit them."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from typing import Any

from vlm.datasets.readers.lazy_media import LazyMedia

MAX_TEXT = 10_000
"""Characters of one text of the metadata; longer ones are cut."""
MAX_DEPTH = 8
"""Of objects and lists inside each other."""

Tell = Callable[[str], None]
_NOTHING = object()


def plain(values: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Texts, numbers, lists and objects of them; times as ISO 8601 (in UTC where they have a zone), so that a filter
    orders them as texts. Null is left out; of what else is left out or cut, `tell` gets what and where."""
    found = {str(key): _plain(value, f"key {key!r}", tell, 0) for key, value in values.items() if value is not None}
    return {key: value for key, value in found.items() if value is not _NOTHING}


def _plain(value: Any, where: str, tell: Tell, depth: int) -> Any:
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, str):
        return _text(value, where, tell)
    if isinstance(value, float):
        return value if isfinite(value) else _left_out(f"{where}: a number that is not finite, left out", tell)
    if isinstance(value, Decimal):
        return _number(value, where, tell)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc).isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, dict | list | tuple):
        if depth == MAX_DEPTH:
            return _left_out(f"{where}: more than {MAX_DEPTH} objects deep, left out", tell)
        if isinstance(value, dict):
            inner = {str(k): _plain(v, where, tell, depth + 1) for k, v in value.items() if v is not None}
            return {key: v for key, v in inner.items() if v is not _NOTHING}
        return [v for v in (_plain(one, where, tell, depth + 1) for one in value) if v is not _NOTHING]
    kind = "bytes" if isinstance(value, bytes | LazyMedia) else type(value).__name__
    return _left_out(f"{where}: {kind}, left out", tell)


def _text(value: str, where: str, tell: Tell) -> str:
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        tell(f"{where}: bytes that are no UTF-8, replaced")
        value = "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= one <= "\udfff" else one for one in value)
    if len(value) > MAX_TEXT:
        tell(f"{where}: a text of more than {MAX_TEXT} characters, cut there")
    return value[:MAX_TEXT]


def _number(value: Decimal, where: str, tell: Tell) -> Any:
    if not value.is_finite():
        return _left_out(f"{where}: a number that is not finite, left out", tell)
    number = int(value) if value == value.to_integral_value() else float(value)
    if Decimal(repr(number)) != value:
        tell(f"{where}: a decimal of more digits than a number has, rounded")
    return number


def _left_out(why: str, tell: Tell) -> object:
    tell(why)
    return _NOTHING

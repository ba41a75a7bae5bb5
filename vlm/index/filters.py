"""What a filter means. Engines may find the entries as they like; these are the entries.

    {"year": 2021, "camera.maker": "Nikon"}                 equal, both of them; a dot leads into an object
    {"year": {"gte": 2019, "lt": 2022}, "tag": {"in": ["cat", "dog"]}}
    {"draft": {"exists": false}, "licence": {"ne": "CC-BY"}}
    {"or": [{"year": 2021}, {"not": {"tag": "cat"}}]}

Values are equal as JSON is: 1 and 1.0 are, 1 and true are not. What is missing equals nothing, not even null. `gt`,
`gte`, `lt` and `lte` compare two numbers or two texts (by code points); anything else does not match. A list has what
one of its members has, a range's ends both of one member, and `ne` says that none has it; a path leads into lists of
objects. A key that has dots itself is found by the same path.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vlm.errors import BadInput

MAX_DEPTH, MAX_TERMS, MAX_PATH = 8, 1024, 16
"""A stranger's filter: how deep `or` and `not` go, how many keys and values it has, how many objects a path enters."""

Predicate = Callable[[Mapping[str, Any]], bool]
Test = Callable[[Any], bool]

MISSING = object()
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
OPERATORS = ("in", "ne", *ORDERS, "exists")


def matches(where: Mapping[str, Any] | None, metadata: Mapping[str, Any]) -> bool:
    """Whether an entry's metadata fit. Raises `BadInput` for a filter that cannot be read."""
    return compiled(where)(metadata)


def compiled(where: Mapping[str, Any] | None) -> Predicate:
    """`matches` of one filter, read once for many entries."""
    if where is None:
        return lambda metadata: True
    size = _size(where, 2 * MAX_DEPTH + MAX_PATH)
    if size > MAX_TERMS:
        raise BadInput(f"filter: expected at most {MAX_TERMS} keys and values, got {size}")
    return _all_of(where, "filter", 0)


def _all_of(where: object, at: str, depth: int) -> Predicate:
    if not isinstance(where, Mapping):
        raise BadInput(f"{at}: expected an object, got {_kind(where)}")
    if depth > MAX_DEPTH:
        raise BadInput(f"filter: expected `or` and `not` at most {MAX_DEPTH} deep")
    terms = [_term(key, value, at, depth) for key, value in where.items()]
    return terms[0] if len(terms) == 1 else lambda metadata: all(term(metadata) for term in terms)


def _term(key: object, value: object, at: str, depth: int) -> Predicate:
    if not isinstance(key, str) or not key:
        raise BadInput(f"{at}: expected keys of text, got {key!r:.40}")
    at = f"{at}.{key:.60}"
    if key == "or":
        if not isinstance(value, list) or not value:
            raise BadInput(f"{at}: expected a list of filters, got {_kind(value)}")
        choices = [_all_of(choice, at, depth + 1) for choice in value]
        return lambda metadata: any(choice(metadata) for choice in choices)
    if key == "not":
        inner = _all_of(value, at, depth + 1)
        return lambda metadata: not inner(metadata)
    path = key.split(".")
    if len(path) > MAX_PATH:
        raise BadInput(f"{at}: expected a path through at most {MAX_PATH} objects, got {len(path)}")
    test = _operators(value, at) if isinstance(value, Mapping) else _equals(value, at)
    return lambda metadata: test(found(metadata, path))


def _operators(operators: Mapping[str, Any], at: str) -> Test:
    if not operators:
        raise BadInput(f"{at}: expected a value or one of {', '.join(OPERATORS)}, got an empty object")
    tests = {name: _operator(name, value, f"{at}.{name!s:.20}") for name, value in operators.items()}
    whole = [test for name, test in tests.items() if name in ("ne", "exists")]
    of_one = [test for name, test in tests.items() if name not in ("ne", "exists")]
    if len(tests) == 1:
        return next(iter(tests.values()))
    return lambda value: (
        all(test(value) for test in whole)
        and (not of_one or any(all(test(one) for test in of_one) for one in members(value)))
    )


def _operator(name: str, given: Any, at: str) -> Test:
    if name == "in":
        if not isinstance(given, list):
            raise BadInput(f"{at}: expected a list of values, got {_kind(given)}")
        keys = {key(_scalar(value, at)) for value in given}
        return lambda value: any(key(one) in keys for one in members(value))
    if name == "ne":
        equal = _equals(given, at)
        return lambda value: not equal(value)
    if name == "exists":
        if not isinstance(given, bool):
            raise BadInput(f"{at}: expected true or false, got {_kind(given)}")
        return lambda value: (value is not MISSING) == given
    if name in ORDERS:
        order, kind = ORDERS[name], _order_kind(given)
        if kind is None:
            raise BadInput(f"{at}: expected a number or a text, got {_kind(given)}")
        return lambda value: any(_order_kind(one) is kind and order(one, given) for one in members(value))
    raise BadInput(f"{at}: expected one of {', '.join(OPERATORS)}, got {name!r:.40}")


def _equals(given: Any, at: str) -> Test:
    wanted = key(_scalar(given, at))
    return lambda value: any(key(one) == wanted for one in members(value))


def _scalar(value: Any, at: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BadInput(f"{at}: expected a text, a number, true, false or null, got {_kind(value)}")


def key(value: Any) -> tuple[bool, Any]:
    """Equal for values that are equal in JSON: Python takes true for 1."""
    return isinstance(value, bool), value


def _order_kind(value: Any) -> type | None:
    if isinstance(value, bool):
        return None
    return float if isinstance(value, (int, float)) else str if isinstance(value, str) else None


def members(value: Any) -> list[Any]:
    """What is compared of a value: itself, or the members of a list; lists in lists and objects are not."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if not isinstance(one, (list, Mapping))]


def found(metadata: Any, path: list[str]) -> Any:
    """The value at the end of a path, a list of those in several objects of a list, or `MISSING`."""
    if not path:
        return metadata
    if isinstance(metadata, list):
        ends = [end for one in metadata if (end := found(one, path)) is not MISSING]
        return [one for end in ends for one in (end if isinstance(end, list) else [end])] if ends else MISSING
    if not isinstance(metadata, Mapping):
        return MISSING
    for count in range(1, len(path) + 1):
        name = ".".join(path[:count])
        if name in metadata and (end := found(metadata[name], path[count:])) is not MISSING:
            return end
    return MISSING


def _size(value: object, depth: int) -> int:
    """Keys and values of a filter, counted no further than it may be long or deep."""
    if depth < 0:
        raise BadInput(f"filter: expected `or` and `not` at most {MAX_DEPTH} deep")
    size = 0
    for inner in _inside(value):
        size += 1 + _size(inner, depth - 1)
        if size > MAX_TERMS:
            raise BadInput(f"filter: expected at most {MAX_TERMS} keys and values, got more")
    return size


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)

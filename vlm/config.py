"""Typed configs: every recipe, model and dataset card is a `Config`, validated when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vlm.errors import BadInput

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Immutable; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


MOST_FAULTS = 12
"""That one line names."""


def parse(cls: type[C], data: Any, where: str) -> C:
    """`data` as a `cls`. Raises `BadInput` naming `where`, and of every fault the key and what was expected."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: {'; '.join(_faults(error))}") from None


def faults(cls: type[Config], data: Any) -> list[str]:
    """What keeps `data` from being a `cls`, a line each; none where it is one."""
    try:
        cls.model_validate(data)
    except ValidationError as error:
        return _faults(error)
    return []


def _faults(error: ValidationError) -> list[str]:
    found: dict[str, str] = {}
    for one in error.errors():
        key = ".".join(str(part) for part in one["loc"]) or "(top level)"
        # A check of our own (value_error) already says what it found.
        got = f", got {str(one['input'])[:80]!r}"
        got = "" if one["type"] in ("missing", "extra_forbidden", "value_error") else got
        found.setdefault(key, f"key {key}: {one['msg'].removeprefix('Value error, ')}{got}")
    told = list(found.values())
    more = len(told) - MOST_FAULTS
    return [*told[:MOST_FAULTS], *([f"and {more} more"] if more > 0 else [])]


def parse_pairs(cls: type[C], text: str, where: str) -> C:
    """`key=value,key=value`, values in YAML, as a `cls`. Raises `BadInput` as `parse`."""
    data: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise BadInput(f"{where}: expected key=value,key=value, got {item!r}")
        try:
            data[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise BadInput(f"{where}: expected a number or a word, got {value!r}") from None
    return parse(cls, data, where)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file (safe loader). Raises `BadInput` where it is missing or malformed."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: not a file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise BadInput(f"{path}: not a YAML file: nested too deep") from None


def load(cls: type[C], path: Path, overrides: list[str] | None = None) -> C:
    """Read one card or recipe; `overrides` are `key.sub=value` strings whose values are YAML."""
    data = read_yaml(path)
    for item in overrides or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise BadInput(f"override {item!r}: expected key=value")
        target = data
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise BadInput(f"override {item!r}: {key!r} is not a key of {path}")
        try:
            target[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BadInput(f"override {item!r}: not YAML: {' '.join(str(error).split())}") from None
    return parse(cls, data, str(path))

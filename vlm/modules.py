"""Modules of a user's own, whose import adds to the registries: named, or installed with an entry point."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from vlm.errors import BadInput

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

VARIABLE = "VLM_MODULES"
"""The environment's names of modules, between commas: processes that this one starts read it too."""
GROUP = "vlm.modules"
"""The entry points of installed packages: `[project.entry-points."vlm.modules"]`, `any_name = "my_package"`."""


def use(name: str) -> None:
    """Import a module now, and in the processes that this one starts. Raises `BadInput` where it does not import."""
    _import(name, f"module {name!r}")
    named = _named()
    if name not in named:
        os.environ[VARIABLE] = ",".join([*named, name])


def load_named() -> None:
    """Import what `$VLM_MODULES` names, looked for in the working folder too."""
    for name in _named():
        _import(name, f"module {name!r} of {VARIABLE}")


def load() -> None:
    """Import every module that was named and every one that is installed; those that are imported stay as they are."""
    load_named()
    for entry in _installed():
        package = entry.dist.name if entry.dist is not None else entry.name
        _import(entry.module, f"module {entry.module!r} of the installed package {package}", here=False)


def _import(name: str, what: str, here: bool = True) -> None:
    if here and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        import_module(name)
    except Exception as error:  # the code is a stranger's: whatever it raises is said in one line
        said = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        raise BadInput(f"{what} does not import: {' '.join(said.split())}") from error


def _named() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


@cache
def _installed() -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points

    return tuple(entry_points(group=GROUP))

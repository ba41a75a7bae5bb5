"""The errors a user sees: one line that says what, where, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class VlmError(Exception):
    """Something failed while working. The command line prints it as one line and exits with 1."""

    exit_code = 1


class BadInput(VlmError):
    """What the user gave cannot be used (a path, a name, a file's content). Exits with 2."""

    exit_code = 2


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """A `BadInput` for a name that does not exist, with the nearest known name suggested."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return BadInput(f"unknown {kind} {name!r}; {hint}")

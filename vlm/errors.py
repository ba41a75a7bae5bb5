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


class Incapable(BadInput):
    """What is asked is beyond the model, whatever the input: no other input is worth trying."""


MANY = 12
"""The most names that the line of an error lists."""


def unknown(kind: str, name: str, known: Iterable[str], listing: str = "there are") -> BadInput:
    """A `BadInput` for a name that does not exist, with the nearest known name suggested.

    Of many names it suggests up to three, and `listing` ("`vlm models` names all") with their number ends the line.
    """
    names = sorted(known)
    many = len(names) > MANY
    near = [repr(one) for one in get_close_matches(name, names, n=3 if many else 1, cutoff=0.4)]
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if many:
        hints.append(f"{listing} {len(names)}")
    elif not near:
        hints.append(f"known: {', '.join(names) or 'none'}")
    return BadInput(f"unknown {kind} {name!r}; {' '.join(hints)}")

"""Errors are one line, carry the exit code of the command line, and suggest the nearest name."""

from __future__ import annotations

import pytest

from vlm.errors import BadInput, VlmError, unknown


def test_exit_codes() -> None:
    assert VlmError("x").exit_code == 1
    assert BadInput("x").exit_code == 2
    assert issubclass(BadInput, VlmError), "one except clause catches both"


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("nanno", ["nano", "base"], "unknown model 'nanno'; did you mean 'nano'?"),
        ("zzz", ["nano", "base"], "unknown model 'zzz'; known: base, nano"),
        ("nano", [], "unknown model 'nano'; known: none"),
        ("nan", ["nano", "nana", *"bcdefghijklm"], "unknown model 'nan'; did you mean 'nano' or 'nana'? there are 14"),
        ("zzz", ["nano", *"abcdefghijklm"], "unknown model 'zzz'; there are 14"),
    ],
)
def test_unknown_name(name: str, known: list[str], message: str) -> None:
    assert str(unknown("model", name, known)) == message

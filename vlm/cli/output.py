"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from vlm.errors import VlmError

LINE_SECONDS = 10.0
"""Where stderr is not a terminal: seconds between two lines of progress."""


def say(text: str) -> None:
    """One line on stderr."""
    print(f"vlm: {' '.join(str(text).split())}", file=sys.stderr, flush=True)


def emit(data: dict[str, Any]) -> None:
    """The one JSON object of a command run with `--json`. Raises `VlmError` for numbers that JSON has not."""
    try:
        print(json.dumps(data, allow_nan=False), flush=True)
    except ValueError:
        raise VlmError("expected numbers that JSON has, got NaN or infinity in the results") from None


Advance = Callable[[int, str], None]
_running: list[Advance] = []


@contextmanager
def working(label: str, total: int | None = None) -> Iterator[Advance]:
    """While a command works: a bar with an estimate on a terminal, a line now and then elsewhere, both on stderr.

    Gives `advance(done, text)`. Inside another, only the other's text changes. What the libraries below print to
    stdout goes to stderr.
    """
    with redirect_stdout(sys.stderr):
        if _running:
            yield partial(_retitle, _running[-1], label)
            return
        with _bar(label, total) if sys.stderr.isatty() else nullcontext(_lines(label, total)) as advance:
            _running.append(advance)
            try:
                yield advance
            finally:
                _running.pop()


def _retitle(outer: Advance, label: str, done: int, text: str = "") -> None:
    outer(-1, text or label)


@contextmanager
def _bar(label: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()] if total else [TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)

        def advance(done: int, text: str = "") -> None:
            progress.update(task, completed=done if done >= 0 else None, description=text or label)

        yield advance


def _lines(label: str, total: int | None) -> Advance:
    began = last = time.monotonic()
    reached = 0

    def advance(done: int, text: str = "") -> None:
        nonlocal last, reached
        reached = done if done >= 0 else reached
        now = time.monotonic()
        if now - last < LINE_SECONDS:
            return
        last = now
        left = f", {(now - began) / reached * (total - reached):.0f} s left" if total and reached else ""
        say(f"{text or label}: {reached} of {total}{left}" if total else text or label)

    return advance


def shown_path(path: str) -> str:
    """A path below the working folder as the user would write it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def table(columns: list[str], rows: list[list[str]]) -> None:
    """Rows for a person, on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)

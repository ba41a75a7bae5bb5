"""The `vlm` command: everything a user does with the toolkit, one command each."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130
"""The exit code that shells give a command ended by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted.

    What goes wrong is one line on stderr. `VLM_DEBUG=1` shows tracebacks, warnings and other libraries' messages.
    """
    debugging = os.environ.get("VLM_DEBUG", "") not in ("", "0")
    if not debugging:
        _silence_libraries()
    for stream in (sys.stdout, sys.stderr):  # a file name may hold bytes that the terminal's encoding lacks
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with _interrupts() as interrupts:
        try:
            code = _run(arguments, debugging, interrupts)
        except KeyboardInterrupt:
            code = INTERRUPTED
    if code == INTERRUPTED:
        print("vlm: interrupted", file=sys.stderr, flush=True)
    return code


def _run(arguments: Sequence[str] | None, debugging: bool, interrupts: Sequence[int]) -> int:
    import typer

    from vlm.cli.app import app
    from vlm.cli.output import say
    from vlm.errors import BadInput, VlmError

    usage_error: Any = typer.BadParameter.__mro__[1]  # click's, which typer carries inside itself from 0.26 on
    try:
        given = sys.argv[1:] if arguments is None else arguments
        if "" in given:  # as a path it would be the working folder
            raise BadInput(f"argument {list(given).index('') + 1} is empty; is a variable of the shell not set?")
        command = typer.main.get_command(app)
        code = command.main(None if arguments is None else list(arguments), prog_name="vlm", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.Abort:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if interrupts:
            return INTERRUPTED
        if isinstance(error, usage_error):
            path = error.ctx.command_path if error.ctx else "vlm"
            say(f"{error.format_message()} (see `{path} --help`)")
            return 2
        if debugging:
            raise
        if isinstance(error, VlmError):
            say(str(error))
            return error.exit_code
        say(f"{type(error).__name__}: {error} (VLM_DEBUG=1 shows where)")
        return 1


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Keeps count of Ctrl-C: in the middle of a library's import it can come out as any other error."""
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield seen  # whoever calls us minds it
        return

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _silence_libraries() -> None:
    """Progress bars and advice of the libraries below would mix with ours; set before they are imported."""
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")

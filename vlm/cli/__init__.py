"""The `vlm` command: everything a user does with the toolkit, one command each."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any


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
    import typer

    from vlm.cli.app import app
    from vlm.cli.output import say
    from vlm.errors import VlmError

    usage_error: Any = typer.BadParameter.__mro__[1]  # click's, which typer carries inside itself from 0.26 on
    try:
        command = typer.main.get_command(app)
        code = command.main(None if arguments is None else list(arguments), prog_name="vlm", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
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


def _silence_libraries() -> None:
    """Progress bars and advice of the libraries below would mix with ours; set before they are imported."""
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")

"""Ctrl-C: one line and the exit code of shells, whatever a library makes of it."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from vlm import assets
from vlm.cli import main


def interrupt(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_and_fail(*_: Any) -> None:
    """As an import that was interrupted may end."""
    try:
        interrupt()
    except KeyboardInterrupt:
        raise RecursionError("maximum recursion depth exceeded") from None


@pytest.mark.parametrize("what", [interrupt, interrupt_and_fail])
def test_ctrl_c_is_one_line(vlm_command: Any, monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    monkeypatch.setattr(assets, "cards", what)
    done = vlm_command("models")
    assert (done.code, done.out, done.complaints) == (130, "", ["vlm: interrupted"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failure_without_ctrl_c_is_a_failure(vlm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "cards", lambda *_: 1 / 0)
    done = vlm_command("models")
    assert (done.code, done.out) == (1, "")
    assert done.complaints[0].startswith("vlm: ZeroDivisionError")


def test_a_command_runs_outside_the_main_thread(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["--version"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert capsys.readouterr().out.startswith("vlm ")

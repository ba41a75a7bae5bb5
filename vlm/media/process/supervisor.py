"""Work in other processes that are watched: stopped where they hang, replaced where they crashed or grew.

A process starts in a third of a second and serves request after request; threads that ask at the same time get one
each. It is a plain child process, so it works inside the workers of a data loader too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from typing import Any, cast

import numpy as np

from vlm.errors import BadInput, VlmError
from vlm.media.process.messages import Message, Shared, receive, send

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {} import main; main()"

START_SECONDS = 60.0
"""What a process may take to start."""


class Ended(Exception):
    """A process that ended before its answer was whole, or was stopped for `silence` seconds without a message."""

    def __init__(self, code: int, silence: float | None) -> None:
        super().__init__(f"signal {-code}" if code < 0 else f"exit code {code}")
        self.silence = silence


class Process:
    """A running worker: `main` of `module`, which calls `vlm.media.process.worker.serve`."""

    def __init__(self, module: str) -> None:
        self._shared = Shared.new()
        passed = [self._shared.descriptor] if self._shared else []
        command = [sys.executable, "-c", _START.format(module), json.dumps(sys.path), *map(str, passed)]
        pipe = subprocess.PIPE
        try:
            self._child = subprocess.Popen(
                command, pass_fds=passed, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        except OSError as error:
            raise VlmError(f"{module}: expected a process of its own to start, got {error}") from None
        finally:
            if self._shared:
                os.close(self._shared.descriptor)  # the mapping stays
        self._requests, self._answers = cast(FileIO, self._child.stdin), cast(FileIO, self._child.stdout)
        self.pid, self.healthy = self._child.pid, True
        self._heard, self._patience, self._started = 0.0, START_SECONDS, False

    def ask(self, request: dict[str, Any], deadline: float, array: np.ndarray | None = None) -> Iterator[Message]:
        """The messages that answer a request; their arrays are valid until the iterator goes on to its end.

        `deadline` is in seconds without a message. Raises what the worker raised, as `BadInput` or `VlmError`, and
        `Ended` where the process ended or had to be stopped.
        """
        self.healthy = False  # until the answer is whole
        over, late = threading.Event(), threading.Event()
        self._heard, self._patience = time.monotonic(), deadline if self._started else START_SECONDS
        threading.Thread(target=self._watch, args=(over, late), daemon=True).start()
        try:
            send(self._requests.fileno(), request, array)
            while True:
                message, found = receive(self._answers, self._shared)
                self._heard, self._patience, self._started = time.monotonic(), deadline, True
                if message.get("sign"):
                    continue
                if "full" not in message:
                    yield message, found
                    continue
                self.healthy = not message["full"]
                if "error" in message:
                    raise (BadInput if message["bad"] else VlmError)(message["error"])
                return
        except (BrokenPipeError, EOFError):
            pass  # the process is gone
        finally:
            over.set()
            if not self.healthy:
                code = self.stop()
        raise Ended(code, self._patience if late.is_set() else None)

    def alive(self) -> bool:
        return self._child.poll() is None

    def stop(self) -> int:
        """End the process; its exit code, below 0 for a signal."""
        self._child.kill()
        code = self._child.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()
        return code

    def _watch(self, over: threading.Event, late: threading.Event) -> None:
        # Once a second at least: patience ends sooner when the process has started.
        while not over.wait(min(1.0, max(0.0, self._heard + self._patience - time.monotonic()))):
            if time.monotonic() >= self._heard + self._patience:
                late.set()
                self._child.kill()
                return


class Pool:
    """Processes of one worker, as many as are asked at the same time; each waits for the next request."""

    _idle: list[Process]

    def __init__(self, module: str) -> None:
        self._module = module
        self.deaths = 0
        """Processes that ended during a request."""
        self.start_afresh()
        _pools.add(self)

    def ask(self, request: dict[str, Any], deadline: float, array: np.ndarray | None = None) -> Iterator[Message]:
        """As `Process.ask`."""
        process = self._waiting() or self.start()
        try:
            yield from process.ask(request, deadline, array)
        except Ended:
            with self._lock:
                self.deaths += 1
            raise
        finally:
            if process.healthy:
                self.keep(process)

    def start(self) -> Process:
        return Process(self._module)

    def keep(self, process: Process) -> None:
        """For the next request."""
        with self._lock:
            self._idle.append(process)

    def close(self) -> None:
        """End the processes that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.stop()

    def start_afresh(self) -> None:
        """Know no process: in a forked process two askers on one pipe would read each other's answers."""
        self._lock = threading.Lock()
        self._idle = []

    def _waiting(self) -> Process | None:
        """One that waits; those that were ended meanwhile, say for their memory, are no fault of the next request."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.alive():
                    return process
        return None


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forked() -> None:
    for pool in _pools:
        pool.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

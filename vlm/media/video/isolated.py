"""Decoding in another process that is watched: stopped where it hangs, replaced where it crashed or grew.

One process is kept and serves clip after clip (it takes a third of a second to start); threads that ask at the same
time get one each. It is a plain child process, so it works inside the workers of a data loader too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from vlm.errors import BadInput, VlmError
from vlm.media.video.container import Timeline
from vlm.media.video.messages import Message, Shared, receive, send

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from vlm.media.video.worker import main; main()"

START_SECONDS = 60.0
"""What a process may take to start."""

_idle: list[Process] = []
_lock = threading.Lock()


class Process:
    """A running worker."""

    def __init__(self) -> None:
        self._shared = Shared.new()
        passed = [self._shared.descriptor] if self._shared else []
        command = [sys.executable, "-c", _START, json.dumps(sys.path), *map(str, passed)]
        pipe = subprocess.PIPE
        try:
            self._child = subprocess.Popen(
                command, pass_fds=passed, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as error:
            raise VlmError(f"no process to decode videos in: {error}; isolated=False decodes without one") from None
        self._requests, self._answers = cast(FileIO, self._child.stdin), cast(FileIO, self._child.stdout)
        self.pid, self.healthy = self._child.pid, True
        self._heard, self._patience, self._started = 0.0, START_SECONDS, False
        if self._shared:
            os.close(self._shared.descriptor)  # the mapping stays

    def ask(self, request: dict[str, Any], deadline: float) -> Iterator[Message]:
        """The messages that answer `request`. Raises `BadInput` or `VlmError` in one line."""
        self.healthy, path = False, request["path"]  # until the answer is whole
        over, late = threading.Event(), threading.Event()
        self._heard, self._patience = time.monotonic(), deadline if self._started else START_SECONDS
        threading.Thread(target=self._watch, args=(over, late), daemon=True).start()
        try:
            send(self._requests.fileno(), {**request, "folder": os.getcwd()})
            while True:
                message, array = receive(self._answers, self._shared)
                self._heard, self._patience, self._started = time.monotonic(), deadline, True
                if "error" in message:
                    self.healthy = True
                    raise (BadInput if message["bad"] else VlmError)(message["error"])
                if "done" in message:
                    self.healthy = not message["full"]
                    return
                if array is not None or "size" in message:
                    yield message, array
        except (BrokenPipeError, EOFError):
            pass  # the process is gone
        finally:
            over.set()
            if not self.healthy:
                code = self.stop()
        if late.is_set():
            silence = f"no frame for {self._patience:g} s: its decoder hung and was stopped"
            raise BadInput(f"{path}: expected a video that decodes, got {silence}")
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise BadInput(f"{path}: expected a video that decodes, got one that ended the decoder ({ended})")

    def alive(self) -> bool:
        return self._child.poll() is None

    def stop(self) -> int:
        """End the process; its exit code, below 0 for a signal."""
        self._child.kill()
        return self._child.wait()

    def _watch(self, over: threading.Event, late: threading.Event) -> None:
        # Once a second at least: patience ends sooner when the process has started.
        while not over.wait(min(1.0, max(0.0, self._heard + self._patience - time.monotonic()))):
            if time.monotonic() >= self._heard + self._patience:
                late.set()
                self._child.kill()
                return


class IsolatedDecoder:
    """What `PyavDecoder` gives, from another process. `deadline` is in seconds without a packet or frame."""

    def __init__(self, path: Path, backend: str, deadline: float) -> None:
        self._about, self._deadline = {"path": str(path), "backend": backend}, deadline
        ((about, times_N),) = self._ask("timeline")
        assert times_N is not None
        self.timeline = Timeline(times_N.copy(), about["duration"], about["keyframes"])

    def size(self) -> tuple[int, int]:
        ((about, _),) = self._ask("size")
        return about["size"][0], about["size"][1]

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The pixels are valid until the next request."""
        return self._pictures("frames", wanted)

    def thumbnails(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        return ((index, pixels.copy()) for index, pixels in self._pictures("thumbnails", wanted))

    def close(self) -> None:
        """The process stays for the next file."""

    def _pictures(self, do: str, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for message, pixels in self._ask(do, indices=list(wanted)):
            assert pixels is not None
            yield message["index"], pixels

    def _ask(self, do: str, **more: Any) -> Iterator[Message]:
        process = _idle_process() or Process()
        try:
            yield from process.ask({**self._about, "do": do, **more}, self._deadline)
        finally:
            if process.healthy:
                with _lock:
                    _idle.append(process)


def _idle_process() -> Process | None:
    """One that waits; those that were ended meanwhile, say for their memory, are no fault of the next file."""
    with _lock:
        while _idle:
            process = _idle.pop()
            if process.alive():
                return process
    return None


def _start_afresh() -> None:
    """In a forked process: two askers on one pipe would read each other's answers."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)

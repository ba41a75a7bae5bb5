"""Pictures decoded in processes of their own: a stranger's file can hang, crash or fill one of them, nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vlm.errors import BadInput
from vlm.media.video.messages import Message, Shared, receive, send

Picture = NDArray[np.uint8]
"""[H, W, 3]."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from vlm.server.http.decode_worker import main; main()"
)
START_SECONDS = 60.0
"""What a process may take to start."""


class Decoders:
    """So many threads, with a process each."""

    def __init__(self, count: int, pixels: int, seconds: float) -> None:
        self._pixels, self._seconds = pixels, seconds
        self._threads = ThreadPoolExecutor(count, "decoder")
        self._own = threading.local()
        self._all: list[_Process] = []
        self.deaths = 0
        """Processes that a picture ended."""

    async def picture(self, content: bytes) -> Picture:
        """The picture upright in RGB `[H, W, 3]`. Raises `BadInput` for what is none, or none within the limits."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, content)

    def close(self) -> None:
        self._threads.shutdown()
        for process in self._all:
            process.stop()

    def _decode(self, content: bytes) -> Picture:
        process: _Process | None = getattr(self._own, "process", None)
        if process is None or not process.alive():
            process = self._own.process = _Process(self._pixels)
            self._all = [other for other in self._all if other.alive()] + [process]
        try:
            return process.decode(content, self._seconds)
        except (BrokenPipeError, EOFError):
            self.deaths += 1
            how = f"took longer than {self._seconds:g} s" if process.late else "ended its decoder"
            raise BadInput(f"expected an image that decodes, got one that {how}") from None
        finally:
            if not process.healthy:
                process.stop()
                self._own.process = None


class _Process:
    def __init__(self, pixels: int) -> None:
        self._shared = Shared.new()
        passed = [self._shared.descriptor] if self._shared else []
        command = [sys.executable, "-c", _START, json.dumps(sys.path), str(pixels), *map(str, passed)]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(
            command, pass_fds=passed, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self._requests, self._answers = cast(FileIO, self._child.stdin), cast(FileIO, self._child.stdout)
        self.healthy, self.late, self._ready = True, False, False
        if self._shared:
            os.close(self._shared.descriptor)

    def alive(self) -> bool:
        return self._child.poll() is None

    def decode(self, content: bytes, seconds: float) -> Picture:
        """Raises `BrokenPipeError` or `EOFError` where the process is no more."""
        self.healthy = False  # until the answer is whole
        if not self._ready:
            self._patiently(START_SECONDS, lambda: receive(self._answers))
            self._ready = True
        about, pixels = self._patiently(seconds, lambda: self._ask(content))
        self.healthy = not about["full"]
        if "error" in about:
            raise BadInput(about["error"])
        return np.array(pixels)  # the memory is the next picture's too

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()

    def _ask(self, content: bytes) -> Message:
        send(self._requests.fileno(), {}, np.frombuffer(content, np.uint8))
        return receive(self._answers, self._shared)

    def _patiently(self, seconds: float, work: Callable[[], Message]) -> Message:
        timer = threading.Timer(seconds, self._give_up)
        timer.start()
        try:
            return work()
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self.late = True
        self._child.kill()

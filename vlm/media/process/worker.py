"""The other end of `supervisor.Process`: requests come in on stdin, answers go out on stdout."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput, VlmError
from vlm.media.process.messages import Message, Shared, receive, send

ALIVE_SECONDS = 0.5
"""Between two signs of life."""
FULL_BYTES = 2**30
"""A process that once held more than this is replaced after its request."""


class Reply:
    """Where the messages of an answer go."""

    def __init__(self, out: int, shared: Shared | None = None) -> None:
        self._out, self._shared, self._said = out, shared, time.monotonic()

    def send(self, message: dict[str, Any], array: np.ndarray | None = None) -> None:
        send(self._out, message, array, self._shared)
        self._said = time.monotonic()

    def alive(self) -> None:
        """Tell slow from hung: to be called often."""
        if time.monotonic() - self._said > ALIVE_SECONDS:
            self.send({"sign": "alive"})

    def clear(self) -> None:
        """The memory is free for the next answer."""
        if self._shared:
            self._shared.clear()


Answer = Callable[[dict[str, Any], np.ndarray | None], None]
"""A request and its array -> messages sent through the worker's `Reply`; what it raises is told to whoever asks."""


def serve(worker: Callable[[Reply], Answer]) -> None:
    """Answer requests until there is nobody to ask. Does not return."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints does not end up between messages
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    reply = Reply(out, Shared(int(sys.argv[2])) if len(sys.argv) > 2 else None)
    reply.send({"sign": "ready"})
    answer = worker(reply)
    while True:
        reply.clear()
        request, array = requests.get()
        try:
            answer(request, array)
            end: dict[str, Any] = {}
        except VlmError as error:
            end = {"error": str(error), "bad": isinstance(error, BadInput)}
        except Exception as error:  # whatever it is, the asking process has to hear of it
            end = {"error": in_a_line(error), "bad": False}
        reply.send({"full": most_bytes() > FULL_BYTES, **end})


def in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _listen(requests: queue.SimpleQueue[Message]) -> None:
    """Pass requests on; end the process when there is nobody to ask, even where a decoder hangs."""
    try:
        with open(0, "rb", buffering=0, closefd=False) as pipe, suppress(EOFError):
            while True:
                requests.put(receive(pipe))
    finally:
        os._exit(0)


def bound_memory(most: int) -> None:
    """No more than so many bytes of address space, and no core files; where the system can."""
    try:
        import resource
    except ImportError:  # not on every system
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def most_bytes() -> int:
    """The most memory that this process has held."""
    if sys.platform.startswith("linux"):
        # Not `getrusage`: across fork and exec Linux keeps the peak of the process that asked, a model's owner say.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 if "VmHWM:" in status else 0
    try:
        import resource
    except ImportError:  # not on every system
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

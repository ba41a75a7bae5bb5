"""The process that decodes, so that a decoder can hang, crash or leak without harm to whoever asks.

Requests come in on stdin, answers go out on stdout.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput
from vlm.media.video.backends import decoder_class
from vlm.media.video.backends.pyav import PyavDecoder
from vlm.media.video.messages import Shared, receive, send

ALIVE_SECONDS = 0.5
"""Between two signs of life while packets come by."""
FULL_BYTES = 2**30
"""A process that once held more than this is replaced after its request."""


class Worker:
    """Answers requests; the file of the last one stays open."""

    def __init__(self, out: int, shared: Shared | None = None) -> None:
        self._out, self._shared, self._said = out, shared, time.monotonic()
        self._key: object = None
        self._decoder: PyavDecoder | None = None

    def answer(self, request: dict[str, Any]) -> None:
        if self._shared:
            self._shared.clear()
        try:
            os.chdir(request["folder"])
            decoder = self._open(Path(request["path"]), request["backend"])
            match request["do"]:
                case "timeline":
                    found = decoder.timeline
                    self._send({"duration": found.duration, "keyframes": found.keyframes}, found.times_N)
                case "size":
                    self._send({"size": decoder.size()})
                case "frames":
                    for index, pixels in decoder.frames(request["indices"]):
                        self._send({"index": index}, pixels)
                case "thumbnails":
                    for index, pixels in decoder.thumbnails(request["indices"]):
                        self._send({"index": index}, pixels)
            self._send({"done": True, "full": most_bytes() > FULL_BYTES})
        except BadInput as error:
            self._forget()
            self._send({"error": str(error), "bad": True})
        except Exception as error:  # whatever it is, the asking process has to hear of it
            self._forget()
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self._send({"error": f"{request['path']}: {text[:200]}", "bad": False})

    def _open(self, path: Path, backend: str) -> PyavDecoder:
        status = path.stat()
        key = (path.resolve(), backend, status.st_mtime_ns, status.st_size)
        if self._decoder is None or self._key != key:
            self._forget()
            self._decoder, self._key = decoder_class(backend)(path, self._alive), key
        return self._decoder

    def _forget(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = self._key = None

    def _alive(self) -> None:
        if time.monotonic() - self._said > ALIVE_SECONDS:
            self._send({"alive": True})

    def _send(self, message: dict[str, Any], array: np.ndarray | None = None) -> None:
        send(self._out, message, array, self._shared)
        self._said = time.monotonic()


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints does not end up between messages
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    send(out, {"ready": True})
    worker = Worker(out, Shared(int(sys.argv[2])) if len(sys.argv) > 2 else None)
    while True:
        worker.answer(requests.get())


def _listen(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass requests on; end the process when there is nobody to ask, even where a decoder hangs."""
    with open(0, "rb", buffering=0, closefd=False) as pipe, suppress(EOFError):
        while True:
            requests.put(receive(pipe)[0])
    os._exit(0)


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

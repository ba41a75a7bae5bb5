"""The process that decodes clips, so that a decoder can hang, crash or leak without harm to whoever asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vlm.errors import BadInput, VlmError
from vlm.media.process.worker import Reply, in_a_line, serve
from vlm.media.video.backends import decoder_class
from vlm.media.video.backends.pyav import PyavDecoder


class Worker:
    """Answers requests; the file of the last one stays open."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._key: object = None
        self._decoder: PyavDecoder | None = None

    def __call__(self, request: dict[str, Any], array: np.ndarray | None = None) -> None:
        try:
            self._answer(request)
        except BadInput:
            self._forget()
            raise
        except Exception as error:
            self._forget()
            raise VlmError(f"{request['path']}: {in_a_line(error)}") from None

    def _answer(self, request: dict[str, Any]) -> None:
        os.chdir(request["folder"])
        decoder, send = self._open(Path(request["path"]), request["backend"]), self._reply.send
        match request["do"]:
            case "timeline":
                found = decoder.timeline
                send({"duration": found.duration, "keyframes": found.keyframes}, found.times_N)
            case "size":
                send({"size": decoder.size()})
            case "notes":
                send({"notes": decoder.notes()})
            case "frames":
                for index, pixels in decoder.frames(request["indices"]):
                    send({"index": index}, pixels)
            case "thumbnails":
                for index, pixels in decoder.thumbnails(request["indices"]):
                    send({"index": index}, pixels)

    def _open(self, path: Path, backend: str) -> PyavDecoder:
        status = path.stat()
        key = (path.resolve(), backend, status.st_mtime_ns, status.st_size)
        if self._decoder is None or self._key != key:
            self._forget()
            self._decoder, self._key = decoder_class(backend)(path, self._reply.alive), key
        return self._decoder

    def _forget(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = self._key = None


def main() -> None:
    serve(Worker)

"""Messages through a pipe: the length of a JSON object, the object, and the bytes of the array whose shape it gives.

Nothing is pickled: a process that decodes a stranger's file is not to be trusted.
"""

from __future__ import annotations

import json
import os
import sys
from io import FileIO
from typing import Any

import numpy as np

PIPE_BYTES = 2**20
Message = tuple[dict[str, Any], np.ndarray | None]


def send(pipe: int, about: dict[str, Any], array: np.ndarray | None = None) -> None:
    if array is not None:
        about = {**about, "shape": array.shape, "dtype": str(array.dtype)}
    header = json.dumps(about).encode()
    _write(pipe, memoryview(len(header).to_bytes(4, "big") + header))
    if array is not None:
        _write(pipe, np.ascontiguousarray(array).data.cast("B"))


def receive(pipe: FileIO) -> Message:
    """The next message. Raises `EOFError` where the other end is closed."""
    length = int.from_bytes(_read(pipe, memoryview(bytearray(4))), "big")
    about = json.loads(bytes(_read(pipe, memoryview(bytearray(length)))))
    if "shape" not in about:
        return about, None
    array = np.empty(about["shape"], about["dtype"])
    if array.size:
        _read(pipe, array.data.cast("B"))
    return about, array


def _write(pipe: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _read(pipe: FileIO, buffer: memoryview) -> memoryview:
    rest = buffer
    while rest:
        count = pipe.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return buffer


def widen(pipe: int) -> None:
    """A frame is larger than a pipe usually holds: with more room the two processes wait for each other less."""
    if sys.platform.startswith("linux"):
        import fcntl

        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # above what the system allows
            return

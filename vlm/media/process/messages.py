"""Messages between two processes: the length of a JSON object, the object, and an array where it gives a shape.

The array lies in memory that both see while there is room in it, which saves copying it through the pipe, and follows
the object through the pipe else. Nothing is pickled: a process that decodes a stranger's file is not to be trusted.
"""

from __future__ import annotations

import json
import mmap
import os
from io import FileIO
from typing import Any

import numpy as np

SHARED_BYTES = 2**25
"""Memory that two processes share: a hundred small frames, or a dozen large ones."""
Message = tuple[dict[str, Any], np.ndarray | None]


class Shared:
    """Memory at a file descriptor; the arrays of one answer lie in it one after another."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._bytes = np.frombuffer(mmap.mmap(descriptor, SHARED_BYTES), np.uint8)
        self._used = 0

    @staticmethod
    def new() -> Shared | None:
        """Not on every system."""
        if not hasattr(os, "memfd_create"):
            return None
        descriptor = os.memfd_create("vlm-frames")
        os.truncate(descriptor, SHARED_BYTES)
        return Shared(descriptor)

    def clear(self) -> None:
        self._used = 0

    def put(self, array: np.ndarray) -> int | None:
        """Where it lies now; None where there is no room."""
        at = self._used
        if at + array.nbytes > SHARED_BYTES:
            return None
        self._used = at + -(-array.nbytes // 64) * 64
        self.view(at, array.shape, array.dtype)[...] = array
        return at

    def view(self, at: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes[at : at + count].view(dtype).reshape(shape)


def send(pipe: int, about: dict[str, Any], array: np.ndarray | None = None, shared: Shared | None = None) -> None:
    rest = memoryview(b"")
    if array is not None:
        about = {**about, "shape": array.shape, "dtype": str(array.dtype)}
        at = shared.put(array) if shared else None
        if at is not None:
            about["at"] = at
        else:
            rest = np.ascontiguousarray(array).data.cast("B")
    header = json.dumps(about).encode()
    _write(pipe, memoryview(len(header).to_bytes(4, "big") + header))
    _write(pipe, rest)


def receive(pipe: FileIO, shared: Shared | None = None) -> Message:
    """The next message; its array is valid until the next request. Raises `EOFError` where the other end is closed."""
    length = int.from_bytes(_read(pipe, memoryview(bytearray(4))), "big")
    about = json.loads(bytes(_read(pipe, memoryview(bytearray(length)))))
    if "shape" not in about:
        return about, None
    if shared and "at" in about:
        return about, shared.view(about["at"], about["shape"], about["dtype"])
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

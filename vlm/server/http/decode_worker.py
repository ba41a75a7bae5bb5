"""The process that decodes pictures: encoded bytes in on stdin, pixels out on stdout."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import numpy as np

from vlm.errors import BadInput
from vlm.media import images
from vlm.media.video.messages import Shared, receive, send
from vlm.media.video.worker import most_bytes

MEMORY_BYTES = 3 * 2**30
"""A picture at the limit takes four copies of 160 MB; more than this is an attack."""
FULL_BYTES = 2**30
"""A process that once held more than this is replaced after its answer."""


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints does not end up between messages
    _bound_memory()
    images.MAX_PIXELS = int(sys.argv[2])
    shared = Shared(int(sys.argv[3])) if len(sys.argv) > 3 else None
    send(out, {"ready": True})
    with open(0, "rb", buffering=0, closefd=False) as requests, suppress(EOFError, BrokenPipeError):
        while True:
            _, content = receive(requests)
            assert content is not None
            if shared:
                shared.clear()
            try:
                pixels = np.asarray(images.load_image(content.tobytes()))
                send(out, {"full": most_bytes() > FULL_BYTES}, pixels, shared)
            except (BadInput, MemoryError) as error:
                text = str(error) if isinstance(error, BadInput) else "expected an image that fits into memory"
                send(out, {"error": text, "full": most_bytes() > FULL_BYTES})


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # not on every system
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

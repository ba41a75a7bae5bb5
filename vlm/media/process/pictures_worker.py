"""The process that decodes pictures: encoded bytes in, pixels out."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlm.errors import BadInput
from vlm.media import images
from vlm.media.process.worker import Answer, Reply, bound_memory, in_a_line, serve

MEMORY_BYTES = 3 * 2**30
"""A picture at the limit takes four copies of 160 MB; more than this is an attack."""


def decoding(reply: Reply) -> Answer:
    def answer(request: dict[str, Any], content: np.ndarray | None) -> None:
        assert content is not None
        images.MAX_PIXELS = request["pixels"]
        try:
            reply.send({}, np.asarray(images.load_image(content.tobytes())))
        except BadInput:
            raise
        except MemoryError:
            raise BadInput("expected an image that fits into memory") from None
        except Exception as error:  # what a decoder raises on a stranger's file is the file's fault
            raise BadInput(f"expected an image that decodes, got {in_a_line(error)}") from None

    return answer


def main() -> None:
    bound_memory(MEMORY_BYTES)
    serve(decoding)

"""The process that decodes pictures: encoded bytes in, pixels out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from vlm.errors import BadInput
from vlm.media import images
from vlm.media.process.worker import Answer, Reply, bound_memory, in_a_line, serve
from vlm.media.thumbnails import thumbnail

MEMORY_BYTES = 3 * 2**30
"""A picture at the limit takes four copies of 160 MB; more than this is an attack."""


def decoding(reply: Reply) -> Answer:
    def answer(request: dict[str, Any], content: np.ndarray | None) -> None:
        assert content is not None
        images.MAX_PIXELS = request["pixels"]
        try:
            if request.get("count"):
                reply.send({"count": _count(content.tobytes())})
                return
            notes: list[str] = []
            _send(reply, images.load_image(content.tobytes(), notes=notes), notes, request)
        except BadInput:
            raise
        except MemoryError:
            raise BadInput("expected an image that fits into memory") from None
        except Exception as error:  # what a decoder raises on a stranger's file is the file's fault
            raise BadInput(f"expected an image that decodes, got {in_a_line(error)}") from None

    return answer


def _count(content: bytes) -> int:
    """Pixels, by the header; a larger JPEG than the limit is decoded smaller, and anything else is refused then."""
    with images._open(io.BytesIO(content), "image bytes") as image:
        return min(image.size[0] * image.size[1], images.MAX_PIXELS)


def _send(reply: Reply, picture: Image.Image, notes: list[str], request: dict[str, Any]) -> None:
    """The pixels, and a small picture where one is asked for."""
    seen = picture
    if resize := request.get("resize"):
        width, height, filter = resize
        seen = picture.resize((width, height), Image.Resampling[filter.upper()])
    reply.send({"notes": notes}, np.asarray(seen))
    if request.get("thumbnail"):
        reply.send({}, np.frombuffer(thumbnail(picture), np.uint8))


def main() -> None:
    bound_memory(MEMORY_BYTES)
    serve(decoding)

"""Whether a file has all the bytes its container promises."""

from __future__ import annotations

from pathlib import Path

from av.video.stream import VideoStream

from vlm.errors import BadInput


def check_whole(stream: VideoStream, path: Path, packets: int) -> None:
    """Raise `BadInput` where the container's own sizes or marks say that the file goes on: the rest was never copied.

    `packets` is how many were read. Where all that are promised came, the index need not be walked.
    """
    length, end = path.stat().st_size, _outer_end(path)
    if packets < stream.frames:
        end = max(end, *(entry.pos + entry.size for entry in stream.index_entries), 0)
    if _is_open_gif(path):
        raise BadInput(f"{path}: expected a whole video, got a GIF without its last byte: it is cut short")
    if end > length:
        raise BadInput(f"{path}: expected a whole video of at least {end} bytes, got one cut short at {length}")


def _is_open_gif(path: Path) -> bool:
    """Whether it is a GIF that does not end with the trailer (GIF89a, 27); zeros may follow that."""
    with path.open("rb") as file:
        if file.read(4) != b"GIF8":
            return False
        file.seek(-min(512, path.stat().st_size), 2)
        return not file.read().rstrip(b"\0").endswith(b";")


def _outer_end(path: Path) -> int:
    """Where the outermost element of a Matroska (RFC 8794) or AVI (RIFF) file says it ends; 0 where it does not say."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start[:4] == b"RIFF":
        size = int.from_bytes(start[4:8], "little")
        return 0 if size == 0xFFFFFFFF else 8 + size
    segment = start.find(b"\x18\x53\x80\x67")
    if start[:4] != b"\x1a\x45\xdf\xa3" or segment < 0 or segment + 5 > len(start) or not start[segment + 4]:
        return 0
    width = 9 - start[segment + 4].bit_length()  # the leading zeros of the first byte count the bytes that follow it
    size = int.from_bytes(start[segment + 4 : segment + 4 + width], "big") - (1 << 7 * width)
    unknown = (1 << 7 * width) - 1
    return 0 if size == unknown else segment + 4 + width + size

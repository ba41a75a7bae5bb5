"""Transport streams of which several were joined end to end, as `cat` does (ISO 13818-1, 2.4.3).

Each packet of a stream carries a counter of four bits. Where it does not go on, packets were lost - or another
recording begins.
"""

from __future__ import annotations

from pathlib import Path

from vlm.media.video.container import Alive

_SYNC, _TABLE = 0x47, 0
"""The first byte of a packet, and the stream of the table of programmes, with which each recording begins."""
_AT_ONCE = 4096


def only_joined(path: Path, stream: int, alive: Alive) -> bool:
    """Whether the counter of `stream` breaks only where another recording begins, so that nothing is lost.

    There a table of programmes comes first, whose own counter breaks too or which a frame follows that can be decoded
    alone.
    """
    with path.open("rb") as file:
        size, skip = _layout(file.read(204 * 6))
        file.seek(0)
        counters: dict[int, int] = {}
        table, broken_table = False, False  # since the last packet of the stream
        while size and (chunk := file.read(size * _AT_ONCE)):
            alive()
            for at in range(skip, len(chunk) - 187, size):
                if chunk[at] != _SYNC:
                    return False
                number, start = (chunk[at + 1] & 0x1F) << 8 | chunk[at + 2], chunk[at + 1] & 0x40
                if number not in (stream, _TABLE) or not chunk[at + 3] & 0x10:  # without payload it does not count
                    continue
                counter, extended = chunk[at + 3] & 0x0F, chunk[at + 3] & 0x20 and chunk[at + 4]
                flags = chunk[at + 5] if extended else 0
                last = counters.get(number, counter)
                goes_on = counter in (last, last + 1 & 0x0F) or flags & 0x80  # it may come twice, or break by intent
                counters[number] = counter
                if number == _TABLE:
                    table, broken_table = True, broken_table or not goes_on
                    continue
                if not goes_on and not (start and table and (broken_table or flags & 0x40)):
                    return False
                table = broken_table = False
    return bool(size)


def _layout(start: bytes) -> tuple[int, int]:
    """The size of a packet and where in it the first byte is; zeros where it is no transport stream."""
    for size, skip in ((188, 0), (192, 4), (204, 0)):
        if len(start) >= 5 * size and all(start[at] == _SYNC for at in range(skip, 5 * size, size)):
            return size, skip
    return 0, 0

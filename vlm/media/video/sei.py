"""Supplemental messages of H.264 and HEVC (SEI), read for one thing: whether a film says itself how it is turned.

FFmpeg attaches that to the frame it comes with, the first one, while it holds for all that follow (H.264, D.2.27).
"""

from __future__ import annotations

from collections.abc import Iterator

_ORIENTATION = 47
_SEI = {"h264": 6, "hevc": 39}


def tells_orientation(packet: bytes, codec: str) -> bool:
    """Whether a packet carries a display orientation; codecs other than "h264" and "hevc" never do."""
    wanted, header = _SEI.get(codec), 1 if codec == "h264" else 2
    for unit in _units(packet) if wanted else ():
        kind = unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F
        if kind == wanted and _ORIENTATION in _messages(unit[header:].replace(b"\0\0\3", b"\0\0")):
            return True
    return False


def _units(packet: bytes) -> Iterator[bytes]:
    """NAL units, after start codes (H.264, annex B) or their lengths (ISO 14496-15, 5.3.4)."""
    if packet.startswith((b"\0\0\1", b"\0\0\0\1")):
        yield from (unit.rstrip(b"\0") for unit in packet.split(b"\0\0\1") if unit.rstrip(b"\0"))
        return
    at = 0
    while at + 4 < len(packet):
        size = int.from_bytes(packet[at : at + 4], "big")
        if not 0 < size <= len(packet) - at - 4:
            return
        yield packet[at + 4 : at + 4 + size]
        at += 4 + size


def _messages(content: bytes) -> Iterator[int]:
    """The type of each message (H.264, 7.3.2.3.1): type and size are sums of bytes, of which 255 goes on."""
    at = 0
    while at + 2 < len(content):
        found = []
        for _ in range(2):
            total = 0
            while at < len(content) and content[at] == 255:
                total, at = total + 255, at + 1
            if at == len(content):
                return
            found.append(total + content[at])
            at += 1
        yield found[0]
        at += found[1]

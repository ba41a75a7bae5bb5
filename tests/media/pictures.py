"""Pictures and colour profiles that Pillow does not write, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

Chunk = tuple[bytes, bytes]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(samples: np.ndarray, *, bits: int = 16, chunks: Sequence[Chunk] = ()) -> bytes:
    """[H, W] or [H, W, C] of at most `bits` bits, C of 1 to 4 (gray, gray and alpha, RGB, RGBA)."""
    pixels = samples.reshape(*samples.shape[:2], -1)
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    if bits < 8:  # several to a byte
        bits_HWB = np.unpackbits(pixels.astype(np.uint8)[..., :1], axis=-1)[..., 8 - bits :]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in bits_HWB]
    else:
        rows = [row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in pixels]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    framed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def tiff(samples: np.ndarray, *, order: str = "<", tags: dict[int, int | bytes] | None = None) -> bytes:
    """[H, W] or [H, W, C] of any kind of number, not compressed. `tags` may replace those that are written."""
    pixels = samples.reshape(*samples.shape[:2], -1)
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = pixels.dtype.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    found: dict[int, int | bytes | list[int]] = {
        256: width, 257: height, 258: [bits] * channels, 259: 1, 262: 2 if channels >= 3 else 1, 273: 0,
        277: channels, 278: height, 279: len(data), 339: [kind] * channels, **({338: 2} if channels == 4 else {}),
        **(tags or {}),
    }  # fmt: skip
    start = 8 + 2 + 12 * len(found) + 4
    entries, rest = [], b""
    for tag, value in sorted(found.items()):
        if isinstance(value, bytes):
            kind_of_value, count, body = (7 if tag == 34675 else 2), len(value), value
        else:
            numbers = value if isinstance(value, list) else [value]
            wide = tag in (273, 279)
            kind_of_value, count = (4 if wide else 3), len(numbers)
            body = struct.pack(f"{order}{count}{'I' if wide else 'H'}", *numbers)
        if len(body) > 4:
            entries.append((tag, kind_of_value, count, struct.pack(f"{order}I", start + len(rest))))
            rest += body + bytes(len(body) % 2)
        else:
            entries.append((tag, kind_of_value, count, body.ljust(4, b"\0")))
    place = struct.pack(f"{order}I", start + len(rest))
    entries = [(tag, kind, count, place if tag == 273 else body) for tag, kind, count, body in entries]
    mark = {"<": b"II", ">": b"MM"}[order]
    directory = b"".join(struct.pack(f"{order}HHI", tag, kind, count) + body for tag, kind, count, body in entries)
    head = mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(entries))
    return head + directory + bytes(4) + rest + data


SRGB = ((0.6400, 0.3300), (0.3000, 0.6000), (0.1500, 0.0600))
ADOBE = ((0.6400, 0.3300), (0.2100, 0.7100), (0.1500, 0.0600))
P3 = ((0.6800, 0.3200), (0.2650, 0.6900), (0.1500, 0.0600))
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """[3, 3]: linear RGB with the white of D65 to XYZ with that of D50."""
    whole = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    whole = whole * np.linalg.solve(whole, _white(D65))
    return np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _white(D50) / (_BRADFORD @ _white(D65))) @ _BRADFORD @ whole


def _white(place: tuple[float, float]) -> np.ndarray:
    return np.array([place[0] / place[1], 1, (1 - sum(place)) / place[1]])


def profile(primaries: tuple[tuple[float, float], ...] | None, gamma: float) -> bytes:
    """An ICC profile of RGB with these primaries, or of gray without any (ICC.1, 8.3)."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": _xyz(_white(D50))}
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), to_xyz(primaries).T, strict=True):
            tags |= {name + b"XYZ": _xyz(column), name + b"TRC": curve}
    return _icc(b"GRAY" if primaries is None else b"RGB ", b"XYZ ", b"mntr", tags)


def press_profile() -> bytes:
    """An ICC profile of CMYK with a table of two steps a colour (ICC.1, 10.10): paper is warm, black is not quite."""
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(16, 4)
    lab = np.array([93.0, 1, 5]) + corners @ np.array([[-38, -36, -44], [-45, 73, -8], [-5, -6, 88], [-75, 0, -4]])
    levels = np.stack([lab[:, 0].clip(10, 100) * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], axis=-1).clip(0, 255).round()
    same = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    table = (
        b"mft1"
        + struct.pack(">IBBBB", 0, 4, 3, 2, 0)
        + identity
        + same * 4
        + levels.astype(np.uint8).tobytes()
        + same * 3
    )
    return _icc(b"CMYK", b"Lab ", b"prtr", {b"wtpt": _xyz(_white(D50)), b"A2B0": table})


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *(round(float(value) * 65536) for value in values))


def _icc(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", **tags}
    at, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        entries += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    white = struct.pack(">3i", *(round(float(value) * 65536) for value in _white(D50)))
    size = at + len(body)
    header = (
        struct.pack(">I4xI", size, 0x02400000) + kind + space + connection + bytes(12) + b"acsp" + bytes(28) + white
    )
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body

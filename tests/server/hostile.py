"""What strangers may send: pictures that are none or too large, paths and URLs that lead elsewhere."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from serving import CLIP, picture

SVG = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text>&x;</text></svg>"""


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it is this large."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(data)))
    framed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed) + b"\0\0\0\0IEND\xaeB`\x82"


def encoded(kind: str, size: tuple[int, int], **options: str) -> bytes:
    out = io.BytesIO()
    Image.new("L", size).save(out, kind, **options)
    return out.getvalue()


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG that says it is this large."""
    content = bytearray(encoded("JPEG", (64, 64)))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def gif_of(width: int, height: int, frames: int = 1) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + frame * frames + b";"


def png_with(kind: bytes, data: bytes) -> bytes:
    """A picture with one more chunk after its header."""
    content = picture()
    return (
        content[:33]
        + struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        + content[33:]
    )


PICTURES = [
    (png_of(50_000, 50_000), "bomb.png"),  # 2.5 gigapixels, by its header
    (png_of(1200, 1200, b"\0" * 4_321_200), "over.png"),  # over this server's limit, all there
    (png_of(900, 900, b"\0" * 100), "short.png"),
    (SVG, "entities.svg"),
    (SVG, "entities.png"),
    (SVG, "entities.mp4"),
    (b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><l>&b;</l>', "laughs.svg"),
    (gif_of(65_535, 65_535), "bomb.gif"),
    (jpeg_of(65_500, 65_500), "bomb.jpg"),
    (jpeg_of(64, 0), "flat.jpg"),
    (encoded("WEBP", (1200, 1200)), "bomb.webp"),
    (encoded("TIFF", (1200, 1200), compression="tiff_lzw"), "bomb.tif"),
    (encoded("JPEG2000", (1200, 1200)), "bomb.jp2"),
    (b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -5, -(2**31), 1, 24, *[0] * 6), "bomb.bmp"),
    (b"P6 100000 100000 255\n", "bomb.ppm"),
    (b"P6 " + b"9" * 9999, "digits.ppm"),
    (png_with(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(10_000_000))), "text.png"),
    (png_with(b"iCCP", b"k\0\0" + zlib.compress(bytes(10_000_000))), "profile.png"),
    (picture()[:-32], "cut.png"),
    (b"ffconcat version 1.0\nfile /etc/passwd\n", "list.mkv"),
    (CLIP.read_bytes()[:20_000], "cut.mp4"),
    (b"<html><script>alert(1)</script></html>", "page.jpg"),
    (b"\x89PNG\r\n\x1a\n" + os.urandom(4000), "noise.png"),
    (picture(kind="JPEG")[:200], "cut.jpg"),
    (b"", "empty.png"),
    (b"%PDF-1.7 %\xe2", "a.pdf"),
    (b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 3000, "tags.tif"),
    (os.urandom(5000), "noise.mp4"),
    (picture(), "picture.mp4"),
    (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "list.mp4"),
]
"""Contents and names; a server whose limit is a million pixels refuses each."""

PATHS = [
    ("../secret.png", 403),
    ("sub/../../secret.png", 403),
    ("/etc/passwd", 403),
    ("//etc/passwd", 403),
    ("link.png", 403),
    ("linked/secret.png", 403),
    ("loop.png", 403),
    ("a\0.png", 403),
    ("", 403),
    ("x" * 5000, 403),
    ("none.png", 404),
    (".", 404),
    ("pipe.png", 400),
    ("large.png", 413),
    ("file:///etc/passwd", 404),
    ("~/x.png", 404),
    ("..%2fsecret.png", 404),
    ("%2e%2e/secret.png", 404),
    ("..\\secret.png", 404),
    ("\uff0e\uff0e/secret.png", 404),
    ("sub/up/../secret.png", 403),
    ("/proc/self/environ", 403),
    ("/dev/stdin", 403),
    ("environ.png", 403),
    ("socket.png", 404),
    ("pipe.mp4", 400),
    ("a/" * 2000, 404),
]
"""And the status of each, once traps are laid; a server of files of at most 1 MB."""


def lay_traps(media: Path) -> None:
    """Links, pipes and large files in a folder whose files may be named; once, however often it is asked for."""
    outside = media.parent / "outside"
    if not (media / "pipe.png").exists():
        outside.mkdir(exist_ok=True)
        (outside / "secret.png").write_bytes(picture())
        (media.parent / "secret.png").write_bytes(picture())
        (media / "link.png").symlink_to(outside / "secret.png")
        (media / "linked").symlink_to(outside)
        (media / "loop.png").symlink_to(media / "loop.png")
        (media / "large.png").write_bytes(bytes(2**20 + 1))
        (media / "environ.png").symlink_to("/proc/self/environ")
        os.mkfifo(media / "pipe.png")
        os.mkfifo(media / "pipe.mp4")
        socket.socket(socket.AF_UNIX).bind(str(media / "socket.png"))


# fmt: off
URLS = [
    "file:///etc/passwd", "ftp://example.com/a.png", "gopher://127.0.0.1/", "//127.0.0.1/a.png", "a.png",
    "http://127.0.0.1/a.png", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "http://0.0.0.0/",
    "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::ffff:127.0.0.1]/",
    "http://017700000001/", "http://[::]/", "http://[::127.0.0.1]/", "http://[fec0::1]/", "http://127。0。0。1/",
    "http://a@b@127.0.0.1/", "http:///127.0.0.1/", "http://127.0.0.1:22/", "http://%31%32%37.0.0.1/",
    "http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://user@127.0.0.1/", "http://127.0.0.1#.example/",
    "http://a\0b/", "http://", "http://[", "http://example.com:99999/", "http://\r\nX: y/", "http://" + "a" * 300,
]
# fmt: on
"""That lead inside, or nowhere."""


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name has these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr("vlm.media.urls.socket.getaddrinfo", lambda *_, **__: found)

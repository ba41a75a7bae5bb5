"""Hostile pictures and clips, each with the answer it gets."""

from __future__ import annotations

import base64
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from serving import CLIP, error, picture, served

from vlm.media.process import supervisor
from vlm.media.process.supervisor import Process
from vlm.server.http.settings import Limits, Settings

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


def upload(client: httpx.Client, c: str, content: bytes, name: str = "a.png") -> httpx.Response:
    return client.post(f"{c}/items", files={"file": (name, content)})


@pytest.mark.parametrize(
    ("content", "name"),
    [
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
    ],
)
def test_what_is_no_picture_or_too_large_a_one(client: httpx.Client, c: str, content: bytes, name: str) -> None:
    refused = upload(client, c, content, name)
    assert error(refused) == (400, "bad_input")
    assert "/tmp/" not in refused.text
    assert client.get(c).json()["count"] == 0
    encoded = base64.b64encode(content).decode()
    if not name.endswith(".mp4"):
        assert error(client.post(f"{c}/search", json={"image": encoded})) == (400, "bad_input")
        assert error(client.post("/v1/embeddings", json={"input": {"image": encoded}})) == (400, "bad_input")


@pytest.mark.parametrize(
    "content",
    [
        gif_of(16, 16, 60_000),
        png_with(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        png_with(b"eXIf", b"II*\0" + b"\xff" * 500_000),
    ],
    ids=["frames", "announced", "exif"],
)
def test_what_is_much_of_a_small_picture_costs_little(client: httpx.Client, c: str, content: bytes) -> None:
    assert upload(client, c, content).json()["items"][0]["status"] == "added"


@pytest.mark.parametrize("tail", ["zip", "html"])
def test_a_polyglot_is_taken_as_the_picture_it_is_and_shown_as_one_of_ours(
    client: httpx.Client, c: str, tail: str
) -> None:
    """A GIF that is a script too, a JPEG that is an archive too: whatever is given back has been encoded here."""
    html = b"<script>alert(1)</script>"
    content = picture("red", kind="GIF")
    if tail == "zip":
        archive = io.BytesIO(content)
        archive.seek(0, 2)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("x.html", html)
        content = archive.getvalue()
    else:
        content += html
    id = upload(client, c, content, "a.html").json()["items"][0]["id"]
    shown = client.get(f"{c}/thumbnails/{id}")
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert html not in shown.content
    assert not zipfile.is_zipfile(io.BytesIO(shown.content))
    Image.open(io.BytesIO(shown.content)).verify()


def test_a_picture_that_ends_its_decoder_ends_nothing_else(
    client: httpx.Client, c: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Process.ask

    def killed(self: Process, *request: Any) -> Any:
        self._child.kill()
        self._child.wait()
        return before(self, *request)

    monkeypatch.setattr(Process, "ask", killed)
    refused = upload(client, c, picture())
    assert error(refused) == (400, "bad_input")
    assert "ended its decoder" in refused.json()["error"]["message"]
    monkeypatch.undo()
    assert upload(client, c, picture()).status_code == 200
    assert "vlm_decoder_deaths 1.0" in client.get("/metrics").text


def test_a_picture_that_hangs_its_decoder_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "send", lambda *_: None)  # the process waits for a picture that never comes
    with served(Settings(root=tmp_path, limits=Limits(decode_seconds=0.3))) as client:
        answer = client.post("/v1/embeddings", json={"input": {"image": base64.b64encode(picture()).decode()}})
        assert error(answer) == (400, "bad_input")
        assert "longer than 0.3 s" in answer.json()["error"]["message"]


def test_files_over_their_own_limit(client: httpx.Client, c: str) -> None:
    assert error(upload(client, c, bytes(2**20 + 1))) == (413, "too_large")
    assert error(upload(client, c, bytes(2 * 2**20 + 1), "a.mp4")) == (413, "too_large")


def test_a_clip_by_base64_is_bounded_too(client: httpx.Client, c: str) -> None:
    assert CLIP.stat().st_size < 700_000
    video = base64.b64encode(CLIP.read_bytes()).decode()
    assert client.post(f"{c}/items", json={"video": video}).status_code == 200
    assert error(client.post(f"{c}/items", json={"video": base64.b64encode(bytes(9)).decode()})) == (400, "bad_input")

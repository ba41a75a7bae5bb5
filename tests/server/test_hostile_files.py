"""Hostile pictures and clips, each with the answer it gets."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile import PICTURES, gif_of, png_with
from PIL import Image
from serving import CLIP, error, picture, served

from vlm.media.process import supervisor
from vlm.media.process.supervisor import Process
from vlm.server.http.settings import Limits, Settings


def upload(client: httpx.Client, c: str, content: bytes, name: str = "a.png") -> httpx.Response:
    return client.post(f"{c}/items", files={"file": (name, content)})


@pytest.mark.parametrize(("content", "name"), PICTURES)
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

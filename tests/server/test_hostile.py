"""A list of hostile inputs, each with the answer it gets."""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from serving import CLIP, as_json, error, picture, raw, served, unit, wait

from vlm.server.settings import Limits, Settings

SVG = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text>&x;</text></svg>"""


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it is this large."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(data)))
    framed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed) + b"\0\0\0\0IEND\xaeB`\x82"


def upload(client: httpx.Client, c: str, content: bytes, name: str = "a.png") -> httpx.Response:
    return client.post(f"{c}/items", files={"file": (name, content)})


# Pictures


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (png_of(50_000, 50_000), "bomb.png"),  # 2.5 gigapixels, by its header
        (png_of(1200, 1200, b"\0" * 4_321_200), "over.png"),  # over this server's limit, all there
        (png_of(900, 900, b"\0" * 100), "short.png"),
        (SVG, "entities.svg"),
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
    from vlm.server import decode

    before = decode._Process._ask

    def killed(self: Any, content: bytes) -> Any:
        self._child.kill()
        self._child.wait()
        return before(self, content)

    monkeypatch.setattr(decode._Process, "_ask", killed)
    refused = upload(client, c, picture())
    assert error(refused) == (400, "bad_input")
    assert "ended its decoder" in refused.json()["error"]["message"]
    monkeypatch.undo()
    assert upload(client, c, picture()).status_code == 200
    assert "vlm_decoder_deaths 1.0" in client.get("/metrics").text


def test_a_picture_that_hangs_its_decoder_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlm.server import decode

    monkeypatch.setattr(decode, "send", lambda *_: None)  # the process waits for a picture that never comes
    with served(Settings(root=tmp_path, limits=Limits(decode_seconds=0.3))) as client:
        answer = client.post("/v1/embeddings", json={"input": {"image": base64.b64encode(picture()).decode()}})
        assert error(answer) == (400, "bad_input")
        assert "longer than 0.3 s" in answer.json()["error"]["message"]


# Bodies


def streamed(total: int, sent: list[int]) -> Iterator[bytes]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    yield head
    block = bytes(65536)
    for _ in range(total // len(block)):
        sent.append(len(block))
        yield block


def test_a_gigabyte_is_cut_off_at_the_limit(client: httpx.Client, c: str) -> None:
    sent: list[int] = []
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = client.post(f"{c}/items", content=streamed(2**30, sent), headers=headers)
        assert error(answer) == (413, "too_large")
    except (httpx.WriteError, httpx.ReadError):
        pass  # the connection was closed while more was on its way
    assert sum(sent) < 64 * 2**20
    assert client.get(c).json()["count"] == 0


def test_a_body_over_the_limit_says_so(client: httpx.Client, c: str) -> None:
    """The answer reaches a caller who goes on sending."""
    for kind, size in (("application/json", 2 * 2**20), ("multipart/form-data; boundary=b", 6 * 2**20)):
        answer = client.post(f"{c}/items", content=streamed(size, []), headers={"Content-Type": kind})
        assert error(answer) == (413, "too_large")
        assert answer.headers["connection"] == "close"


def test_a_gigabyte_that_is_announced_is_not_read(client: httpx.Client, c: str) -> None:
    head = f"POST {c}/items HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**30}\r\nExpect: 100-continue\r\n\r\n"
    answer = raw(client, head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_files_over_their_own_limit(client: httpx.Client, c: str) -> None:
    assert error(upload(client, c, bytes(2**20 + 1))) == (413, "too_large")
    assert error(upload(client, c, bytes(2 * 2**20 + 1), "a.mp4")) == (413, "too_large")


def test_a_slow_loris_is_let_go(client: httpx.Client) -> None:
    """One that sends a header a byte at a time, one that sends nothing, and one whose body does not come."""
    address = (client.base_url.host, client.base_url.port)
    began = time.monotonic()
    with socket.create_connection(address) as slow, socket.create_connection(address) as silent:
        ended = False
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100:
            try:
                slow.sendall(bytes([byte]))
            except OSError:
                ended = True
                break
            time.sleep(0.05)
        assert ended
        silent.settimeout(5)
        assert silent.recv(10) == b""
    assert time.monotonic() - began < 8
    answer = raw(client, b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"


def test_what_is_no_http_is_answered_as_every_error(client: httpx.Client) -> None:
    answer = raw(client, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_more_connections_than_allowed_are_closed(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path, limits=Limits(connections=4))) as client:
        address = (client.base_url.host, client.base_url.port)
        sockets = [socket.create_connection(address) for _ in range(8)]
        closed = 0
        for sock in sockets:
            sock.settimeout(0.5)
            try:
                closed += sock.recv(1) == b""
            except ConnectionError:
                closed += 1
            except TimeoutError:
                pass
        assert closed >= 4
        for sock in sockets:
            sock.close()
        wait(lambda: client.get("/healthz").status_code == 200)


# Values


@pytest.mark.parametrize(
    "vector",
    [
        [1.0], unit(1)[:-1], [*unit(1), 0.0], [0.0] * 64, [float("nan")] * 64, [float("inf"), *[0.0] * 63],
        [1e400] * 64, ["1"] * 64 + ["x"], [], "abc", [None] * 64, [[1.0]] * 64,
    ],
    ids=["one", "less", "more", "zeros", "nan", "inf", "overflow", "texts", "empty", "text", "null", "deep"],
)  # fmt: skip
def test_vectors_that_are_none(client: httpx.Client, c: str, vector: Any) -> None:
    for path, body in (("search", {"vector": vector}), ("items", {"vector": vector, "id": "v"})):
        assert error(client.post(f"{c}/{path}", **as_json(body))) == (422, "invalid")
    assert client.get(c).json()["count"] == 0


def test_large_and_small_numbers_are_brought_to_length_one(client: httpx.Client, c: str) -> None:
    for scale in (1e300, 1e-300):
        client.post(f"{c}/items", json={"id": "v", "vector": [x * scale for x in unit(1, 2)]})
        hit = client.post(f"{c}/search", json={"vector": unit(1, 2)}).json()["hits"][0]
        assert hit["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": "a", "top": 0}, 422),
        ({"text": "a", "top": 21}, 422),
        ({"text": "a", "top": 10**30}, 422),
        ({"text": "a", "top": 5, "offset": 16}, 422),
        ({"text": "a", "offset": -1}, 422),
        ({"text": "a", "min_score": float("nan")}, 422),
        ({"text": "a" * 9000}, 413),
        ({"text": ""}, 422),
        ({"text": "\ud800"}, 422),
        ({"text": "a\0b"}, 200),
        ({"queries": [{"text": "a"}] * 9}, 413),
        ({"queries": []}, 422),
        ({"image": "no base64!"}, 400),
        ({"image": "data:image/png;base64,"}, 400),
        ({"image": "data:" + "image/png;" * 100_000}, 400),
        ({"id": "none"}, 404),
        ([], 422),
        (None, 422),
    ],
)
def test_searches_over_a_limit_or_of_another_form(client: httpx.Client, c: str, body: Any, status: int) -> None:
    answer = client.post(f"{c}/search", **as_json(body))
    assert answer.status_code == status, answer.text
    if status != 200:
        error(answer)


@pytest.mark.parametrize("depth", [50, 100_000])
def test_json_that_is_deep(client: httpx.Client, c: str, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    for path, body in (
        ("search", f'{{"text": "a", "filter": {deep}}}'),
        ("search", "[" * depth),
        ("items", f'{{"text": "a", "metadata": {deep}}}'),
    ):
        answer = client.post(f"{c}/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in ((200, 422) if depth == 50 else (400, 413, 422)), answer.text


def test_metadata_over_the_limit(client: httpx.Client, c: str) -> None:
    for metadata, status in (({"a": "x" * 20_000}, 413), ({"_media": "0" * 32}, 422), ({"a": "\ud800"}, 422)):
        assert client.post(f"{c}/items", **as_json({"text": "a", "metadata": metadata})).status_code == status
    assert error(client.post(f"{c}/items", json={"items": [{"text": "a"}] * 9})) == (413, "too_large")
    assert error(client.post(f"{c}/items", files=[("f", ("a.png", b"x"))] * 9))[0] in (400, 413)


def test_ids_that_are_none(client: httpx.Client, c: str) -> None:
    for id in ("", "a\0b", "a\nb", "x" * 513, "\ud800"):
        assert error(client.post(f"{c}/items", **as_json({"text": "a", "id": id}))) == (422, "invalid")
    for id in ("..", "../../etc/passwd", "%2e%2e", "a\\b", "🦊"):
        assert client.post(f"{c}/items", json={"text": "a", "id": id}).json()["items"][0]["id"] == id
    assert client.get(c).json()["count"] == 5


# Paths


@pytest.mark.parametrize(
    ("path", "status"),
    [
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
    ],
)
def test_paths_that_lead_elsewhere(client: httpx.Client, c: str, media: Path, path: str, status: int) -> None:
    outside = media.parent / "outside"
    if not outside.exists():
        outside.mkdir()
        (outside / "secret.png").write_bytes(picture())
        (media.parent / "secret.png").write_bytes(picture())
        (media / "link.png").symlink_to(outside / "secret.png")
        (media / "linked").symlink_to(outside)
        (media / "loop.png").symlink_to(media / "loop.png")
        (media / "large.png").write_bytes(bytes(2**20 + 1))
        os.mkfifo(media / "pipe.png")
    answer = client.post(f"{c}/items", json={"path": path})
    assert answer.status_code == status, answer.text
    error(answer)
    assert str(media) not in answer.text


def test_a_link_inside_the_folder_is_followed(client: httpx.Client, c: str, media: Path) -> None:
    (media / "real.png").write_bytes(picture())
    (media / "inner.png").symlink_to("real.png")
    assert client.post(f"{c}/items", json={"path": "inner.png"}).status_code == 200


def test_a_server_without_folders_takes_no_paths(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path)) as client:
        client.post("/v1/collections", json={"name": "c"})
        assert error(client.post("/v1/collections/c/items", json={"path": "/etc/passwd"})) == (403, "path_refused")


# URLs


class Redirecting(http.server.BaseHTTPRequestHandler):
    """A public server that leads to a private one."""

    target = ""

    def do_GET(self) -> None:
        if self.path == "/picture.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture("blue"))
        else:
            self.send_response(302)
            self.send_header("Location", self.target)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that fetches URLs."""
    settings = Settings(root=tmp_path_factory.mktemp("root"), urls=True, limits=Limits(fetch_seconds=2))
    with served(settings) as client:
        client.post("/v1/collections", json={"name": "c"})
        yield client


def test_urls_are_not_fetched_unless_asked(client: httpx.Client, c: str) -> None:
    assert error(client.post(f"{c}/items", json={"url": "https://example.com/a.png"})) == (403, "url_refused")
    image_url = {"image_url": {"url": "https://example.com/a.png"}}
    assert error(client.post("/v1/embeddings", json={"input": image_url})) == (403, "url_refused")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.com/a.png", "gopher://127.0.0.1/", "//127.0.0.1/a.png", "a.png",
        "http://127.0.0.1/a.png", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::ffff:127.0.0.1]/",
        "http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://user@127.0.0.1/", "http://127.0.0.1#.example/",
        "http://a\0b/", "http://", "http://[", "http://example.com:99999/", "http://\r\nX: y/", "http://" + "a" * 300,
    ],
)  # fmt: skip
def test_urls_that_lead_inside(fetching: httpx.Client, url: str) -> None:
    answer = fetching.post("/v1/collections/c/items", json={"url": url})
    assert answer.status_code == 400, answer.text
    assert error(answer)[1] in ("url_refused", "bad_input")


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name has these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr("vlm.vision.urls.socket.getaddrinfo", lambda *_, **__: found)


def test_a_public_name_with_a_private_address(fetching: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for addresses in (["10.1.2.3"], ["93.184.216.34", "127.0.0.1"]):
        resolves(monkeypatch, *addresses)
        answer = fetching.post("/v1/collections/c/items", json={"url": "http://public.example/a.png"})
        assert error(answer) == (400, "url_refused")
        assert "10.1.2.3" not in answer.text


def test_a_redirect_to_a_private_address(fetching: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first hop is let through, as a public server would be; the second one is checked for itself."""
    from vlm.vision import urls

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    port = httpd.server_address[1]
    real = urls._public_address
    seen: list[str] = []

    def first_only(url: str, host: str, *rest: Any) -> str:
        seen.append(url)
        return "127.0.0.1" if host == "public.example" else real(url, host, *rest)

    monkeypatch.setattr(urls, "_public_address", first_only)
    add = "/v1/collections/c/items"
    assert fetching.post(add, json={"url": f"http://public.example:{port}/picture.png"}).status_code == 200
    for target in (f"http://127.0.0.1:{port}/picture.png", "file:///etc/passwd", "http://169.254.169.254/"):
        Redirecting.target = target
        answer = fetching.post(add, json={"url": f"http://public.example:{port}/away"})
        assert error(answer) == (400, "url_refused")
    assert len(seen) == 6  # file:// does not get as far as an address
    httpd.shutdown()
    httpd.server_close()


def test_a_clip_by_base64_is_bounded_too(client: httpx.Client, c: str) -> None:
    assert CLIP.stat().st_size < 700_000
    video = base64.b64encode(CLIP.read_bytes()).decode()
    assert client.post(f"{c}/items", json={"video": video}).status_code == 200
    assert error(client.post(f"{c}/items", json={"video": base64.b64encode(bytes(9)).decode()})) == (400, "bad_input")

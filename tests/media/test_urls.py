from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from vlm.errors import BadInput
from vlm.media.urls import fetch_url, is_url


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[len("/to/") :])
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif self.path in ("/drip/header", "/drip/chunk"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self.wfile.write(b"X: " if self.path == "/drip/header" else b"Transfer-Encoding: chunked\r\n\r\n0000")
            for _ in range(50):
                self.wfile.write(b"0")
                time.sleep(0.1)
        elif self.path.startswith("/a%20b"):
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"picture")
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "99")
            self.end_headers()
            self.wfile.write(b"pic")
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()


def refusal(url: str, **options: object) -> str:
    with pytest.raises(BadInput) as caught:
        fetch_url(url, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fetches_where_private_is_allowed(server: str) -> None:
    assert fetch_url(f"{server}/a b?q=1", allow_private=True) == b"picture"
    assert fetch_url(f"{server}/to//a%20b", allow_private=True) == b"picture"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "[fd00::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "2130706433",
        "224.0.0.1",
        "[fec0::1]",
        "[::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
    ],
)
def test_refuses_what_is_not_public(host: str) -> None:
    assert "expected a public address" in refusal(f"http://{host}:9/x")


def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(None, None, None, "", (ip, 80)) for ip in ("93.184.216.34", "10.0.0.7")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    assert "10.0.0.7" in refusal("http://example.com/cat.jpg")


def test_the_connection_goes_to_the_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def connect(address: object, **_: object) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(None, None, None, "", ("93.184.216.34", 80))])
    monkeypatch.setattr(socket, "create_connection", connect)
    assert "refused" in refusal("http://example.com/cat.jpg")
    assert asked == [("93.184.216.34", 80)]


def test_redirects_are_checked_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "http://" in refusal(f"{server}/to/file:///etc/passwd", allow_private=True)
    assert "redirects" in refusal(f"{server}/loop", allow_private=True)


@pytest.mark.parametrize("url", ["ftp://example.com/a", "file:///etc/passwd", "http://", "cat.jpg", "http://a:b/c"])
def test_other_urls(url: str) -> None:
    refusal(url)


def test_limits(server: str) -> None:
    assert "404" in refusal(f"{server}/none", allow_private=True)
    assert "at most 3 bytes" in refusal(f"{server}/a%20b", allow_private=True, max_bytes=3)
    refusal(f"{server}/short", allow_private=True)


@pytest.mark.parametrize("path", ["slow", "drip/header", "drip/chunk"])
def test_a_byte_now_and_then_does_not_make_the_time_longer(server: str, path: str) -> None:
    began = time.monotonic()
    assert "no answer in time" in refusal(f"{server}/{path}", allow_private=True, timeout=0.5)
    assert time.monotonic() - began < 2


def test_is_url() -> None:
    assert is_url("https://example.com/cat.jpg")
    assert not is_url("cat.jpg")
    assert not is_url(b"https://example.com")

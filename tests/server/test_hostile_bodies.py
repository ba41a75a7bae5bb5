"""Hostile requests: bodies without end, forms and lengths that lie, callers that are slow, each with its answer."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import error, picture, raw, served, wait

from vlm.server.http.settings import Limits, Settings


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


FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + picture() + b"\r\n"


def field(name: str, value: bytes) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("", FILE, 400),
        ("; boundary=", FILE, 400),
        ("; boundary=c", FILE, 400),
        ("; boundary=" + "b" * 5000, FILE, 400),
        ("; boundary=b; charset=punycode", FILE + field("metadata", b"-" + b"a9" * 100_000), 415),
        ("; boundary=b; charset=undefined", FILE, 415),
        ("; boundary=b", FILE[:-30], 422),
        ("; boundary=b", field("id", b"x") * 10_000, 400),
        ("; boundary=b", FILE * 10_000, 400),
        ("; boundary=b", b"--b\r\n" + b"a" * 2**20, 400),
        ("; boundary=b", b"--b\r\n" + b"a: b\r\n" * 1000, 400),
        ("; boundary=b", b"\r\n" * 2**20, 422),
        ("; boundary=b", FILE + field("metadata", b'{"a": 1}') + field("metadata", b'{"a": 2}'), 422),
        ("; boundary=b", FILE + FILE.replace(b'"file"', b'"metadata"'), 422),
        ("; boundary=b", FILE + field("metadata", b'{"a": NaN}'), 422),
        ("; boundary=b", FILE + field("metadata", b'{"a": 1e400}'), 422),
        ("; boundary=b", FILE + field("metadata", b'{"a": ' + b"[" * 100_000), 422),
        ("; boundary=b", FILE + field("metadata", b'{"a": "\\ud800"}'), 422),
        ("; boundary=b", FILE + field("metadata", b'{"a": ' + b"9" * 30 + b"}"), 400),
        ("; boundary=b", FILE + field("metadata", b'{"a": ' + b"9" * 5000 + b"}"), 422),
        ("; boundary=b", FILE + field("metadata", b"7"), 422),
        ("; boundary=b", FILE + field("other", b"x"), 422),
        ("; boundary=b", FILE + field("id", b"a\0b"), 422),
    ],
)
def test_forms_that_are_none(client: httpx.Client, c: str, kind: str, body: bytes, status: int) -> None:
    headers = {"Content-Type": "multipart/form-data" + kind}
    refused = client.post(f"{c}/items", content=body + b"--b--\r\n", headers=headers)
    assert error(refused)[0] == status, refused.text
    assert "/collections/" not in refused.text  # where an index lies
    assert client.get(c).json()["count"] == 0


def test_what_a_file_calls_itself_leads_nowhere(client: httpx.Client, c: str) -> None:
    for name in (b"../../../tmp/x.png", b"..\\x.png", b"\xff\xfe.png", b"a\tb\x1b[31m.png", b"x" * 3000 + b".png"):
        body = FILE.replace(b"a.png", name) + b"--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        (item,) = client.post(f"{c}/items", content=body, headers=headers).json()["items"]
        shown = client.get(f"{c}/items/{item['id']}").json()["metadata"]["_name"]
        assert len(shown) <= 255
        assert not {"/", "\\"} & set(shown)


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (b"Content-Length: 5", b'{"text": "red"}', 422),
        (b"Content-Length: -1", b"{}", 400),
        (b"Content-Length: 5, 6", b"{}", 400),
        (b"Content-Length: 99999999999999999999999", b"{}", 400),
        (b"Content-Length: 2\r\nContent-Length: 3", b"{}", 400),
        (b"Transfer-Encoding: chunked", b'f\r\n{"text": "red"}\r\n0\r\n\r\n', 200),
        (b"Transfer-Encoding: chunked", b'zz\r\n{"text": "red"}\r\n0\r\n\r\n', 400),
        (b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n", 400),
        (b"X: " + b"a" * 2**20, b"", 400),
        (b"Content-Length: 99", b"{", 408),
    ],
)
def test_lengths_and_headers_that_lie(client: httpx.Client, c: str, head: bytes, body: bytes, status: int) -> None:
    start = f"POST {c}/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = raw(client, start.encode() + head + b"\r\n\r\n" + body)
    assert int(answer.split()[1]) == status, answer
    if status != 200:
        assert set(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]) == {"code", "message"}


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

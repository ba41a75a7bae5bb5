"""Who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import error, picture, served

from vlm.errors import BadInput
from vlm.server.embedding.embedder import Colours
from vlm.server.http.addresses import address
from vlm.server.http.auth import is_loopback, needed, read_keys
from vlm.server.http.settings import Settings
from vlm.server.http.signing import Signer
from vlm.server.retrieval.run import serve

READ, WRITE = "r" * 20, "w" * 20


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(f"# ours\nread {READ}\n\nwrite {WRITE}  # the indexer's\n")
    with served(Settings(root=folder / "root"), keys=read_keys(folder / "keys")) as client:
        client.post("/v1/collections", json={"name": "c"}, headers=bearer(WRITE))
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/v1/collections", "read"),
        ("GET", "/v1/collections/c", "read"),
        ("GET", "/metrics", "read"),
        ("POST", "/v1/collections/c/search", "read"),
        ("POST", "/v1/embeddings", "read"),
        ("GET", "/v1/collections/c/items", "read"),
        ("POST", "/v1/collections/c/items/scroll", "read"),
        ("POST", "/v1/collections/c/items/delete", "write"),
        ("POST", "/v1/collections/c/items/update", "write"),
        ("PATCH", "/v1/collections/c/items/a", "write"),
        ("POST", "/v1/collections", "write"),
        ("POST", "/v1/collections/c/items", "write"),
        ("DELETE", "/v1/collections/c/items/a", "write"),
        ("DELETE", "/v1/collections/c", "write"),
        ("DELETE", "/v1/collections/c/search", "write"),
    ],
)
def test_each_route_takes_a_role(guarded: httpx.Client, method: str, path: str, role: str) -> None:
    assert needed(method, path) == role
    for headers in (
        {},
        bearer("x" * 20),
        {"Authorization": f"Basic {READ}"},
        bearer("\xe9" * 20),
        {"Authorization": "Bearer"},
    ):
        refused = guarded.request(method, path, headers={k: v.encode("latin-1") for k, v in headers.items()})
        assert error(refused) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
    answer = guarded.request(method, path, headers=bearer(READ))
    if role == "write":
        assert error(answer) == (403, "forbidden")
    else:
        assert answer.status_code in (200, 422)


def test_keys_do_what_they_may(guarded: httpx.Client) -> None:
    files = {"file": ("a.png", picture())}
    added = guarded.post("/v1/collections/c/items", files=files, data={"id": "a"}, headers=bearer(WRITE))
    assert added.status_code == 200
    for key in (READ, WRITE):
        found = guarded.post("/v1/collections/c/search", json={"text": "red"}, headers=bearer(key))
        assert found.json()["hits"][0]["id"] == "a"


def test_health_needs_no_key(guarded: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert guarded.get(path).status_code == 200


def test_a_signature_opens_one_address_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer()
    signed = signer.signed(address("v1", "collections", "c", "thumbnails", "a b"))
    path, _, query = signed.partition("?")
    assert path == "/v1/collections/c/thumbnails/a%20b"
    assert signer.allows(path, query.encode())
    assert not signer.allows("/v1/collections/c/thumbnails/other", query.encode())
    assert not Signer().allows(path, query.encode())
    assert not signer.allows(path, query.replace("until=1", "until=2").encode())
    monkeypatch.setattr("time.time", lambda: 1e11)
    assert not signer.allows(path, query.encode())


def test_without_keys_only_this_machine_is_served(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com"):
        assert not is_loopback(host)
        with pytest.raises(BadInput, match="expected keys"):
            serve(Settings(root=tmp_path), [Colours], host=host, port=0, keys=None)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_loopback(host)


def test_without_keys_no_foreign_page_gets_in(client: httpx.Client) -> None:
    """A page open in this machine's browser: by its own name that resolves here, or by a form it sends here."""
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert error(client.get("/v1/collections", headers=headers)) == (403, "forbidden")
    port = client.base_url.port
    for headers in ({"Host": f"localhost:{port}"}, {"Host": f"[::1]:{port}"}, {"Origin": f"http://127.0.0.1:{port}"}):
        assert client.get("/v1/collections", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one key"),
        ("read", ":1: expected `read KEY`"),
        (f"# x\nadmin {READ}", ":2: expected `read KEY`"),
        ("write short", "at least 16 characters, got 5"),
    ],
)
def test_a_file_of_keys_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        read_keys(tmp_path / "keys")
    assert READ not in str(caught.value)
    with pytest.raises(BadInput, match="cannot be read"):
        read_keys(tmp_path / "none")

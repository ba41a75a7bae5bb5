"""Whatever an item or a collection is called, no client's address for it names anything else."""

from __future__ import annotations

import json
import posixpath
import shutil
import subprocess
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from serving import as_json, error, picture

Ask = Callable[[str, str], tuple[int, Any]]
MOVING = ["..", ".", "../..", "a/..", "a/../b", "./a", "a/.", "..\\..", "a\\..\\b", "..\\"]
"""Clients take these for steps: browsers go up at a backslash too."""
ENCODED = ["/a", "a/", "a//b", "https://example.com/a.jpg?b#c", "/", "//"]
PLAIN = [
    "a/b", "...", "..a", "a..", ".hidden", "%2e%2e", "%2F", "a%2Fb", "a%00b", "a?b", "a#b", "a;b", "a+b", "a b", "a\\b",
    "é", "e\u0301", "\u2028", "\u202eb", "🦊", "items", "search", "c:\\d.png", "a&b=c", "~", "'\"<>",
]  # fmt: skip


def _httpx(method: str, url: str) -> tuple[int, Any]:
    answer = httpx.request(method, url, follow_redirects=True)
    return answer.status_code, answer.json()


def _requests(method: str, url: str) -> tuple[int, Any]:
    requests = pytest.importorskip("requests", reason="requests is not installed")
    answer = requests.request(method, url, timeout=20)
    return answer.status_code, answer.json()


def _curl(*options: str) -> Ask:
    def ask(method: str, url: str) -> tuple[int, Any]:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        # Its brackets and braces are patterns, and a backslash stays one.
        words = ["curl", "-sgL", *options, "-w", "\n%{http_code}", "-X", method, url]
        body, _, status = subprocess.run(words, capture_output=True, text=True, check=True).stdout.rpartition("\n")
        return int(status), json.loads(body)

    return ask


CLIENTS: dict[str, Ask] = {
    "httpx": _httpx,
    "requests": _requests,
    "curl": _curl(),
    "curl, path as it is": _curl("--path-as-is"),
}


@pytest.fixture(params=CLIENTS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return CLIENTS[request.param]


def url(client: httpx.Client, path: str) -> str:
    return str(client.base_url).rstrip("/") + path


@pytest.mark.parametrize("id", MOVING)
def test_an_id_that_clients_would_take_for_steps_is_refused_everywhere(client: httpx.Client, c: str, id: str) -> None:
    for body in ({"text": "a", "id": id}, {"items": [{"text": "a", "id": id}]}):
        refused = client.post(f"{c}/items", json=body)
        assert error(refused) == (422, "invalid")
        assert "`..`" in refused.json()["error"]["message"]
    form = client.post(f"{c}/items", files={"file": ("a.png", picture())}, data={"id": id})
    assert error(form) == (422, "invalid")
    assert client.get(c).json()["count"] == 0
    assert error(client.post(f"{c}/search", json={"id": id})) == (404, "item_not_found")


@pytest.mark.parametrize("id", [*ENCODED, *PLAIN])
def test_every_name_that_is_taken_has_an_address_of_its_own(client: httpx.Client, c: str, ask: Ask, id: str) -> None:
    others = ["a", "b", "c"]
    for name in [*others, id]:
        assert client.post(f"{c}/items", json={"text": "red", "id": name}).status_code == 200
    at = quote(id, safe="")
    assert ask("GET", url(client, f"{c}/items/{at}"))[1]["id"] == id
    assert ask("GET", url(client, f"{c}/thumbnails/{at}"))[1]["error"]["code"] == "media_not_found"
    assert ask("GET", url(client, f"{c}/videos/{at}"))[1]["error"]["code"] == "media_not_found"
    assert ask("DELETE", url(client, f"{c}/items/{at}")) == (200, {"deleted": 1})
    assert client.get(c).json()["count"] == 3


@pytest.mark.parametrize("prefix", ["items", "thumbnails", "videos"])
@pytest.mark.parametrize("tail", ["", "..", ".", "%2e%2e", "%2E.", "a/..", "a/%2e%2e", "a/.", "a//b", "/a", "a/",
                                  "a/b/..", "a/../b", "%00", "a%0ab", "%ff", "%c2%85", "%ED%A0%80"])  # fmt: skip
def test_an_address_with_steps_or_gaps_changes_nothing_but_what_it_names(
    client: httpx.Client, c: str, ask: Ask, prefix: str, tail: str
) -> None:
    """What a client sends may be another address than it was given; where it is one of ours, it is that one's own."""
    for name in ("a", "b"):
        client.post(f"{c}/items", json={"text": name, "id": name})
    if tail == ".." and ask is _httpx:  # it sends the collection's own address: why nothing may be called so
        assert httpx.URL(url(client, f"{c}/{prefix}/{tail}")).path == c
        return
    status, answer = ask("DELETE", url(client, f"{c}/{prefix}/{tail}"))
    left = {id for id in ("a", "b") if client.get(f"{c}/items/{id}").status_code == 200}
    if status == 200:
        assert prefix == "items"
        assert answer == {"deleted": 1}
        assert {"a", "b"} - left == {posixpath.normpath(tail)}
    else:
        assert status in (404, 405), answer
        assert left == {"a", "b"}


@pytest.mark.parametrize("name", ["c/items/a", "c/items", "c/", "/c", "../collections/c", "c/../c", "c%2Fitems%2Fa"])
def test_a_collection_s_name_never_reaches_into_another(client: httpx.Client, c: str, ask: Ask, name: str) -> None:
    client.post(f"{c}/items", json={"text": "a", "id": "a"})
    at = url(client, f"/v1/collections/{quote(name, safe='')}")
    for method, path in (
        ("DELETE", at), ("GET", at), ("DELETE", f"{at}/items/a"), ("POST", f"{at}/items"), ("POST", f"{at}/search"),
    ):  # fmt: skip
        status, body = ask(method, path)
        assert status in (404, 415, 422), (method, path, body)
    assert error(client.post("/v1/collections", json={"name": name})) == (422, "invalid")
    assert client.get(f"{c}/items/a").status_code == 200
    assert [each["name"] for each in client.get("/v1/collections").json()["collections"]] == ["c"]


@pytest.mark.parametrize("name", ["..", ".", "", "a b", "\ud800", "a\0", "a\n", "a\\b", "%2e%2e", "é"])
def test_names_of_collections_that_are_none(client: httpx.Client, name: str) -> None:
    assert error(client.post("/v1/collections", **as_json({"name": name}))) == (422, "invalid")


@pytest.mark.parametrize(
    "path", ["/v1/collections/", "//v1/collections/c", "/v1//collections/c", "/v1/collections//c", "/v1/collections/c/",
             "/v1/collections/c//items/a", "/v1/collections/c/items/a/", "/v1%2Fcollections%2Fc", "/v1/./collections/c",
             "/%2e%2e/v1/collections/c", "/v1/collections/c%2Fitems%2Fa", "/v1/collections/c%2Fitems/a"],
)  # fmt: skip
def test_nothing_is_led_on_to_another_address(client: httpx.Client, c: str, path: str) -> None:
    client.post(f"{c}/items", json={"text": "a", "id": "a"})
    for method in ("GET", "DELETE"):
        answer = _curl("--path-as-is")(method, url(client, path))
        assert answer[0] == 404, (method, answer)
    assert client.get(f"{c}/items/a").status_code == 200


def test_head_is_get_without_its_body(client: httpx.Client, c: str) -> None:
    client.post(f"{c}/items", files={"file": ("a.png", picture())}, data={"id": "a"})
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", c, f"{c}/items/a", f"{c}/thumbnails/a"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == got.headers["content-length"]
    assert client.head(f"{c}/items/b").status_code == 404

"""Hostile values: vectors, numbers, texts, ids, JSON that is deep or wide, each with the answer it gets."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from serving import as_json, error, raw, unit


@pytest.mark.parametrize(
    "vector",
    [
        [1.0], unit(1)[:-1], [*unit(1), 0.0], [0.0] * 64, [float("nan")] * 64, [float("inf"), *[0.0] * 63],
        [1e400] * 64, ["1"] * 64, [True] * 64, [10**400, *[0] * 63], [], "abc", [None] * 64, [[1.0]] * 64,
    ],
    ids="one less more zeros nan inf overflow texts bools integer empty text null deep".split(),
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
        ({"text": "a", "top": -1}, 422),
        ({"text": "a", "top": "5"}, 422),
        ({"text": "a", "top": True}, 422),
        ({"text": "a", "top": 21}, 422),
        ({"text": "a", "top": 10**30}, 422),
        ({"text": "a", "top": 5, "offset": 16}, 422),
        ({"text": "a", "offset": -1}, 422),
        ({"text": "a", "min_score": float("nan")}, 422),
        ({"text": "a", "filter": {"n": float("nan")}}, 422),
        ({"text": "a", "filter": {"n": {"gt": 1e400}}}, 422),
        ({"text": "a", "filter": {"\ud800": 1}}, 422),
        ({"text": "a", "filter": {"n": {"regex": "(a+)+$"}}}, 422),
        ({"text": "a", "filter": {"n": {"in": list(range(2000))}}}, 422),
        ({"text": "a", "filter": {"n'; DROP TABLE x; --": "'"}}, 200),
        ({"text": "a", "filter": {"n": 10**30}}, 200),
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
    for id in ("", "a\0b", "a\nb", "a\x85b", "x" * 513, "\ud800"):
        assert error(client.post(f"{c}/items", **as_json({"text": "a", "id": id}))) == (422, "invalid")
    for id in ("...", "..a/.b", "%2e%2e", "a\\b", "🦊"):
        assert client.post(f"{c}/items", json={"text": "a", "id": id}).json()["items"][0]["id"] == id
    assert client.get(c).json()["count"] == 5


@pytest.mark.parametrize("path", ["/v1/collections/c/items", "/v1/collections/c/search", "/v1/embeddings"])
@pytest.mark.parametrize("one", [b"1", b"[]", b"{}", b'"x"', b"null"])
def test_json_that_is_wide_is_told_by_its_first_fault(client: httpx.Client, c: str, path: str, one: bytes) -> None:
    """A finding takes a thousand times the memory of what it is about."""
    key = {"items": b"items", "search": b"queries"}.get(path.rpartition("/")[2], b"input")
    headers = {"Content-Type": "application/json"}
    for body in (
        b'{"%s": [%s]}' % (key, b",".join([one] * 50_000)),
        b"{%s}" % b",".join(b'"%d": %s' % (n, one) for n in range(30_000)),
    ):
        refused = client.post(path, content=body, headers=headers)
        assert refused.status_code in (413, 422), refused.text
        error(refused)
        assert "more)" not in refused.text


def test_json_of_too_many_values_is_not_parsed(client: httpx.Client, c: str) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b'{"input": [' + b"[]," * 200_000, b'{"text": "a", "metadata": {"a": [' + b"{}," * 200_000):
        refused = client.post("/v1/embeddings", content=body, headers=headers)
        assert error(refused) == (413, "too_large")
        assert "values" in refused.text


def test_ids_of_any_form_are_the_ones_that_were_given(client: httpx.Client, c: str) -> None:
    """Nothing is made of them: not one of two ways to write a letter, not a path, not an address."""
    names = [*"\u00e9 e\u0301 a/b/..c /a a/ ?q #f %2e a%00 \u202e".split(" "), " ", "\u2028", "\U0001d4b3" * 512]
    client.post(f"{c}/items", json={"items": [{"id": id, "text": "red"} for id in names[:8]]})
    client.post(f"{c}/items", json={"items": [{"id": id, "text": "red"} for id in names[8:]]})
    assert client.get(c).json()["count"] == len(names)
    for id in names:
        assert client.get(f"{c}/items/{quote(id, safe='')}").json()["id"] == id
        assert client.delete(f"{c}/items/{quote(id, safe='')}").json() == {"deleted": 1}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/collections/%00", "/v1/collections/..%2f..%2fetc/items/a", "/v1/collections/%252e%252e",
        "/v1/collections/c/items/%00", "/v1/collections/c/items/%c2%85", "/v1/collections/c/items/%ff%fe",
        "/v1/collections/c/items/", "/v1/collections/c/thumbnails/..%2f..%2fcollection.json",
        "/v1/../etc/passwd", "//evil.example/", "/docs",
    ],
)  # fmt: skip
def test_addresses_that_are_none(client: httpx.Client, c: str, path: str) -> None:
    answer = raw(client, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")), answer
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]) == {"code", "message"}

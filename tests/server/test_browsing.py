"""Entries read page by page, changed and deleted by what they say; vectors that come out; words beside vectors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import as_json, error, ids, picture, served, unit

from vlm.server.http.settings import Settings


def filled(client: httpx.Client, c: str, count: int = 8) -> None:
    items = [{"id": f"{n:02}", "vector": unit(1, n), "metadata": {"n": n, "even": n % 2 == 0}} for n in range(count)]
    assert client.post(f"{c}/items", json={"items": items}).status_code == 200


def pages(client: httpx.Client, c: str, **asked: Any) -> list[list[str]]:
    """Ids page by page, by both ways of asking."""
    found, after = [], None
    while True:
        body = client.post(f"{c}/items/scroll", json={**asked, "after": after}).json()
        if not {"filter", "ids"} & asked.keys():
            params = {key: value for key, value in {**asked, "after": after}.items() if value is not None}
            assert client.get(f"{c}/items", params=params).json() == body
        found.append([item["id"] for item in body["items"]])
        if (after := body["next"]) is None:
            return found


def test_every_entry_is_on_one_page(client: httpx.Client, c: str) -> None:
    assert pages(client, c, limit=3) == [[]]
    filled(client, c)
    assert pages(client, c, limit=3) == [["00", "01", "02"], ["03", "04", "05"], ["06", "07"]]
    assert pages(client, c, limit=4) == [["00", "01", "02", "03"], ["04", "05", "06", "07"]]
    assert pages(client, c) == [[f"{n:02}" for n in range(8)]]
    assert pages(client, c, limit=2, filter={"even": True}) == [["00", "02"], ["04", "06"]]
    assert pages(client, c, limit=2, ids=["07", "none", "01", "05", "01"]) == [["01", "05"], ["07"]]
    first = client.get(f"{c}/items", params={"limit": 1, "vectors": True}).json()["items"][0]
    assert first["metadata"] == {"n": 0, "even": True, "_kind": "vector"}
    np.testing.assert_allclose(first["vector"], unit(1, 0), atol=1e-6)
    assert client.get(f"{c}/items", params={"limit": 1}).json()["items"][0]["vector"] is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("scroll", {"limit": 0}), ("scroll", {"limit": 21}), ("scroll", {"filter": {"n": {"near": 1}}}),
        ("scroll", {"ids": []}), ("scroll", {"after": ""}), ("delete", {}), ("delete", {"ids": ["a"], "filter": {}}),
        ("delete", {"filter": {"or": 1}}), ("delete", {"filter": None}), ("delete", {"ids": [1]}), ("update", {}),
        ("update", {"ids": ["00"]}), ("update", {"filter": {}, "metadata": {"_kind": "x"}}),
        ("update", {"filter": {}, "metadata": {"n": float("nan")}}), ("update", {"ids": ["00"], "metadata": []}),
    ],
)  # fmt: skip
def test_requests_that_are_none_change_nothing(client: httpx.Client, c: str, path: str, body: Any) -> None:
    filled(client, c)
    assert error(client.post(f"{c}/items/{path}", **as_json(body))) == (422, "invalid")
    assert pages(client, c) == [[f"{n:02}" for n in range(8)]]


def test_many_are_deleted_by_name_or_by_what_they_say(client: httpx.Client, c: str) -> None:
    filled(client, c)
    client.post(f"{c}/items", files={"file": ("a.png", picture())}, data={"id": "p", "metadata": '{"n": 6.5}'})
    assert client.post(f"{c}/items/delete", json={"ids": ["01", "none", "01"]}).json() == {"deleted": 1}
    assert client.post(f"{c}/items/delete", json={"filter": {"n": {"gt": 5}}}).json() == {"deleted": 3}
    assert error(client.get(f"{c}/thumbnails/p")) == (404, "item_not_found")
    assert pages(client, c) == [["00", "02", "03", "04", "05"]]
    assert client.post(f"{c}/items/delete", json={"filter": {}}).json() == {"deleted": 5}
    assert client.get(c).json()["count"] == 0


def test_metadata_are_changed_and_nothing_else_is(client: httpx.Client, c: str) -> None:
    client.post(f"{c}/items", files={"file": ("a.png", picture())}, data={"id": "a/b", "metadata": '{"n": 1, "x": 1}'})
    before = client.get(f"{c}/items/a%2Fb", params={"vector": True}).json()
    shown = client.get(f"{c}/thumbnails/a%2Fb").content
    after = client.patch(f"{c}/items/a%2Fb", json={"metadata": {"n": [1, 2], "x": None, "new": {"a": None}}}).json()
    own = {key: value for key, value in after["metadata"].items() if not key.startswith("_")}
    assert own == {"n": [1, 2], "new": {"a": None}}
    assert after["metadata"]["_name"] == before["metadata"]["_name"]
    assert client.get(f"{c}/items/a%2Fb", params={"vector": True}).json()["vector"] == before["vector"]
    assert client.get(f"{c}/thumbnails/a%2Fb").content == shown
    assert error(client.patch(f"{c}/items/none", json={"metadata": {}})) == (404, "item_not_found")
    too_large = {"metadata": {"big": "x" * 9000}}
    assert client.patch(f"{c}/items/a%2Fb", json=too_large).status_code == 200
    assert error(client.patch(f"{c}/items/a%2Fb", json={"metadata": {"big2": "x" * 9000}})) == (422, "invalid")
    assert "big2" not in client.get(f"{c}/items/a%2Fb").json()["metadata"]


def test_many_metadata_are_changed_at_once(client: httpx.Client, c: str) -> None:
    filled(client, c)
    update = {"filter": {"even": True}, "metadata": {"even": None, "tag": ["x", "y"]}}
    assert client.post(f"{c}/items/update", json=update).json() == {"updated": 4}
    assert pages(client, c, filter={"tag": "x"}) == [["00", "02", "04", "06"]]
    assert client.post(f"{c}/items/update", json=update).json() == {"updated": 0}
    hits = client.post(f"{c}/search", json={"vector": unit(1), "filter": {"tag": "y"}, "vectors": True}).json()["hits"]
    assert [hit["id"] for hit in hits] == ["00", "02", "04", "06"]
    np.testing.assert_allclose(hits[1]["vector"], unit(1, 2), atol=1e-6)


@pytest.mark.parametrize("engine", ["lance", "flat"])
def test_changes_at_the_same_time_are_each_made_whole(tmp_path: Path, engine: str) -> None:
    c = "/v1/collections/c"
    with served(Settings(root=tmp_path, engine=engine)) as client:
        filled(client, c, 20)
        with ThreadPoolExecutor(8) as threads:
            patches = [
                threads.submit(client.patch, f"{c}/items/00", json={"metadata": {f"k{n}": n}}) for n in range(30)
            ]
            deletes = [
                threads.submit(client.post, f"{c}/items/delete", json={"filter": {"n": {"gte": n}}})
                for n in range(19, 4, -1)
            ]
            assert {each.result().status_code for each in [*patches, *deletes]} == {200}
        assert sum(each.result().json()["deleted"] for each in deletes) == 15
        assert set(client.get(f"{c}/items/00").json()["metadata"]) >= {f"k{n}" for n in range(30)}
    with served(Settings(root=tmp_path, engine=engine)) as client:
        assert client.get(c).json()["count"] == 5
        assert set(client.get(f"{c}/items/00").json()["metadata"]) >= {f"k{n}" for n in range(30)}


def test_a_name_that_was_taken_before_it_was_refused_is_reached_by_bodies(
    client: httpx.Client, c: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlm.server.retrieval import items

    with monkeypatch.context() as patch:
        patch.setattr(items, "ID", items.TypeAdapter(str))
        client.post(f"{c}/items", files={"file": ("a.png", picture())}, data={"id": ".."})
    assert pages(client, c) == [[".."]]
    assert ids(client.post(f"{c}/search", json={"id": ".."})) == []
    assert client.post(f"{c}/items/update", json={"ids": [".."], "metadata": {"n": 1}}).json() == {"updated": 1}
    assert client.post(f"{c}/items/delete", json={"ids": [".."]}).json() == {"deleted": 1}


def test_words_of_texts_count_beside_vectors(client: httpx.Client, c: str) -> None:
    texts = {"a": "a red bicycle", "b": "serial number XK-4421 of a boat", "c": "blue paint", "d": "boat on a lake"}
    client.post(f"{c}/items", json={"items": [{"id": id, "text": text} for id, text in texts.items()]})
    client.post(f"{c}/items", json={"id": "e", "vector": unit(1), "metadata": {"text": "xk-4421 again", "n": 1}})
    found = client.post(f"{c}/search", json={"text": "XK-4421", "hybrid": True, "top": 2})
    assert sorted(ids(found)) == ["b", "e"]
    filtered = {"text": "XK-4421", "hybrid": True, "filter": {"n": 1}}
    assert ids(client.post(f"{c}/search", json=filtered)) == ["e"]
    client.post(f"{c}/items", json={"id": "f", "text": "the newest XK-4421"})
    assert "f" in ids(client.post(f"{c}/search", json={"text": "newest", "hybrid": True, "top": 1}))
    for odd in ('"', "AND OR (", "a:b +c -d", "*", "\\", "'; DROP", "é🦊"):
        assert client.post(f"{c}/search", json={"text": odd, "hybrid": True}).status_code == 200, odd
    assert error(client.post(f"{c}/search", json={"vector": unit(1), "hybrid": True})) == (422, "invalid")
    with_many = {"queries": [{"text": "bicycle"}, {"text": "paint"}], "hybrid": True, "top": 1}
    results = client.post(f"{c}/search", json=with_many).json()["results"]
    assert [result["hits"][0]["id"] for result in results] == ["a", "c"]


def test_hybrid_search_needs_an_engine_that_keeps_words(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path, engine="flat")) as client:
        client.post("/v1/collections/c/items", json={"text": "a red bicycle"})
        refused = client.post("/v1/collections/c/search", json={"text": "red", "hybrid": True})
        assert error(refused) == (422, "invalid")
        assert "LanceDB" in refused.json()["error"]["message"]

"""A collection as it was: taken, listed, searched and dropped over HTTP."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import httpx
import pytest
from serving import ServerProcess, error, ids, picture, served, unit

from vlm.server.http.auth import Keys
from vlm.server.http.settings import Limits, Settings

C = "/v1/collections/c"


def put(client: httpx.Client, *names: str, **metadata: int) -> None:
    items = [{"id": name, "vector": unit(1, ord(name) - 97), "metadata": metadata} for name in names]
    assert client.post(f"{C}/items", json={"items": items}).status_code == 200


def taken(client: httpx.Client) -> str:
    answer = client.post(f"{C}/snapshots")
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def listed(client: httpx.Client) -> list[str]:
    return [each["id"] for each in client.get(f"{C}/snapshots").json()["snapshots"]]


def found(client: httpx.Client, snapshot: str | None, **asked: object) -> list[str]:
    return ids(client.post(f"{C}/search", json={"vector": unit(1), "snapshot": snapshot, **asked}))


@pytest.mark.parametrize("engine", ["lance", "flat"])
def test_a_snapshot_is_searched_as_it_was_then(tmp_path: Path, engine: str) -> None:
    settings = Settings(root=tmp_path, engine=engine)
    with served(settings) as client:
        put(client, "a", "b", n=1)
        first = taken(client)
        client.delete(f"{C}/items/a")
        put(client, "b", "c", n=2)
        second = taken(client)
        put(client, "d")
        assert listed(client) == [first, second]
    with served(settings) as client:  # they outlive the server
        assert listed(client) == [first, second]
        then = {first: ["a", "b"], second: ["b", "c"], None: ["b", "c", "d"]}
        for snapshot, there in [*then.items(), *then.items()]:
            assert found(client, snapshot) == there
            page = client.post(f"{C}/items/scroll", json={"snapshot": snapshot}).json()["items"]
            if snapshot is not None:
                assert client.get(f"{C}/items", params={"snapshot": snapshot}).json()["items"] == page
            assert [item["id"] for item in page] == there
        assert found(client, first, filter={"n": 1}) == ["a", "b"]
        assert found(client, second, filter={"n": 1}) == []
        alike = {"queries": [{"id": "a"}], "snapshot": first, "vectors": True}  # of an item that is gone
        (hits,) = client.post(f"{C}/search", json=alike).json()["results"]
        assert [hit["id"] for hit in hits["hits"]] == ["b"]
        assert error(client.post(f"{C}/search", json={"id": "a"})) == (404, "item_not_found")
        assert client.delete(f"{C}/snapshots/{first}").json() == {"id": first}
        assert listed(client) == [second]
        for gone in (first, "none", "../manifest", ".."):
            refused = client.post(f"{C}/search", json={"vector": unit(1), "snapshot": gone})
            assert error(refused) == (404, "snapshot_not_found")
        assert error(client.delete(f"{C}/snapshots/{first}")) == (404, "snapshot_not_found")
        assert found(client, second) == ["b", "c"]
        assert found(client, None) == ["b", "c", "d"]


def test_a_collection_of_the_same_name_has_none_of_them(client: httpx.Client, c: str) -> None:
    put(client, "a")
    old = taken(client)
    assert found(client, old) == ["a"]
    client.delete(c)
    client.post("/v1/collections", json={"name": "c"})
    assert listed(client) == []
    put(client, "b")
    new = taken(client)
    assert found(client, new) == ["b"]
    assert error(client.post("/v1/collections/none/snapshots")) == (404, "collection_not_found")


def test_words_and_moments_of_a_snapshot(client: httpx.Client, c: str) -> None:
    client.post(f"{c}/items", json={"id": "boat", "text": "serial number XK-4421"})
    client.post(f"{c}/items", files={"file": ("a.png", picture())}, data={"id": "p"})
    asked = {"text": "XK-4421", "hybrid": True, "top": 1}
    before = taken(client)
    refused = client.post(f"{c}/search", json={**asked, "snapshot": before})
    assert error(refused) == (422, "invalid")
    assert "before its words were indexed" in refused.json()["error"]["message"]
    assert ids(client.post(f"{c}/search", json=asked)) == ["boat"]  # which indexes them
    after = taken(client)
    client.post(f"{c}/items/delete", json={"filter": {}})
    assert ids(client.post(f"{c}/search", json={**asked, "snapshot": after})) == ["boat"]
    assert sorted(found(client, before)) == ["boat", "p"]
    assert error(client.get(f"{c}/thumbnails/p")) == (404, "item_not_found")


def test_there_are_only_so_many(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path, engine="flat", limits=Limits(snapshots=2))) as client:
        put(client, "a")
        first = taken(client)
        taken(client)
        assert error(client.post(f"{C}/snapshots")) == (409, "too_many")
        client.delete(f"{C}/snapshots/{first}")
        taken(client)


def test_a_full_disk_takes_none_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlm.index import flat

    def full(path: Path, content: bytes | str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with served(Settings(root=tmp_path, engine="flat")) as client:
        put(client, "a")
        first = taken(client)
        with monkeypatch.context() as patch:
            patch.setattr(flat, "atomic_write", full)
            assert error(client.post(f"{C}/snapshots")) == (503, "storage")
        put(client, "b")
        second = taken(client)
        assert listed(client) == [first, second]
        assert [found(client, each) for each in (first, second, None)] == [["a"], ["a", "b"], ["a", "b"]]


def test_who_may_read_searches_them_and_no_more(tmp_path: Path) -> None:
    keys, log = Keys({"r" * 16: "read", "w" * 16: "write"}), tmp_path / "audit"
    with served(Settings(root=tmp_path / "root", audit_log=log), keys=keys) as client:
        client.headers["Authorization"] = f"Bearer {'w' * 16}"
        put(client, "a")
        snapshot = taken(client)
        client.headers["Authorization"] = f"Bearer {'r' * 16}"
        assert listed(client) == [snapshot]
        assert found(client, snapshot) == ["a"]
        assert error(client.post(f"{C}/snapshots")) == (403, "forbidden")
        assert error(client.delete(f"{C}/snapshots/{snapshot}")) == (403, "forbidden")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["snapshot"] for line in lines if line["path"].endswith("/snapshots") and line["status"] == 201] == [
        snapshot
    ]


@pytest.mark.process
def test_a_snapshot_that_was_answered_outlives_a_kill(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    put(server.client, "a")
    snapshot = taken(server.client)
    server.client.delete(f"{C}/items/a")
    server.end(9)
    server = ServerProcess(tmp_path)
    assert found(server.client, snapshot) == ["a"]
    assert found(server.client, None) == []

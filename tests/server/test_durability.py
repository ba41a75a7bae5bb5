"""What fails half way changes nothing, and what a kill left half made goes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import CLIP, error, picture, served, unit

from vlm.index.flat import FlatIndex
from vlm.server.http.auth import Keys
from vlm.server.http.settings import Settings

C = "/v1/collections/c"


def test_what_a_kill_left_half_made_goes(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path)) as client:
        client.post("/v1/collections", json={"name": "c"})
        client.post(f"{C}/items", files={"file": ("a.png", picture())}, data={"id": "a"})
    (thumbnail,) = (tmp_path / "collections/c/media").glob("*/*.jpg")
    stray = thumbnail.parent / ("0" * 32 + ".jpg")
    stray.write_bytes(b"x")
    (tmp_path / "collections" / ".half").mkdir()
    (tmp_path / "tmp" / "upload.mp4").write_bytes(b"x")
    with served(Settings(root=tmp_path)) as client:
        assert client.get(f"{C}/thumbnails/a").content == thumbnail.read_bytes()
        left = {path.name for path in tmp_path.rglob("*")}
        assert not {stray.name, ".half", "upload.mp4"} & left
        client.post(f"{C}/items", files={"file": ("a.png", picture("blue"))}, data={"id": "a"})
        assert not thumbnail.exists()
        client.delete(f"{C}/items/a")
        assert not list((tmp_path / "collections/c/media").glob("*/*"))


def test_a_disk_that_fails_is_said_and_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: FlatIndex) -> None:
        raise OSError(28, "No space left on device")

    with served(Settings(root=tmp_path, engine="flat")) as client:
        client.post("/v1/collections", json={"name": "c"})
        client.post(f"{C}/items", json={"id": "a", "vector": unit(1)})
        with monkeypatch.context() as patch:
            patch.setattr(FlatIndex, "commit", full)
            assert error(client.post(f"{C}/items", json={"id": "b", "vector": unit(1)})) == (503, "storage")
            assert error(client.delete(f"{C}/items/a")) == (503, "storage")
        assert client.get(C).json()["count"] == 1
        assert client.post(f"{C}/search", json={"vector": unit(1)}).json()["hits"][0]["id"] == "a"
        assert client.post(f"{C}/items", json={"id": "b", "vector": unit(1)}).status_code == 200


def test_a_full_disk_is_said_whoever_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures, uploads on their way, new collections, and the index that is opened again."""
    from vlm.server.retrieval import collections, media

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    files = {"file": ("a.png", picture())}
    clip = {"file": ("a.mp4", CLIP.read_bytes())}
    with served(Settings(root=tmp_path, engine="flat")) as client:
        client.post("/v1/collections", json={"name": "c"})
        client.post(f"{C}/items", json={"id": "a", "vector": unit(1)})
        with monkeypatch.context() as patch:
            patch.setattr(media, "atomic_write", full)
            assert error(client.post(f"{C}/items", files=files)) == (503, "storage")
        with monkeypatch.context() as patch:
            patch.setattr(media.shutil, "move", full)
            assert error(client.post(f"{C}/items", files=clip)) == (503, "storage")
        assert not [path for path in tmp_path.glob("**/media/*/*")]
        assert not list((tmp_path / "tmp").iterdir())
        with monkeypatch.context() as patch:
            patch.setattr(collections, "create_index", full)
            assert error(client.post("/v1/collections", json={"name": "d"})) == (503, "storage")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", full)
            assert error(client.delete(C)) == (503, "storage")
        with monkeypatch.context() as patch:
            patch.setattr(FlatIndex, "commit", full)
            patch.setattr(collections, "open_index", full)
            for _ in range(2):
                assert error(client.post(f"{C}/items", json={"id": "b", "vector": unit(2)})) == (503, "storage")
        assert client.post(f"{C}/items", json={"id": "c", "vector": unit(1)}).status_code == 200
        assert client.get(C).json()["count"] == 2
        assert client.post(f"{C}/items", files=clip).status_code == 200


def test_what_is_no_collection_is_set_aside_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(Settings(root=tmp_path)) as client:
        for name in ("good", "cut", "other", "no-index", "damaged"):
            client.post(f"/v1/collections/{name}/items", json={"id": "a", "vector": unit(1)})
    root = tmp_path / "collections"
    (root / "stray").mkdir()
    (root / "stray" / "notes.txt").write_text("mine")
    (root / "file").write_text("mine")
    about = (root / "cut" / "collection.json").read_text()
    (root / "cut" / "collection.json").write_text(about[:20])
    (root / "other" / "collection.json").write_text(about.replace("vlm-collection", "another"))
    shutil.rmtree(root / "no-index" / "index")
    for path in (root / "damaged" / "index").rglob("*.manifest"):
        path.write_bytes(b"x")
    left = {path: path.stat().st_mtime_ns for path in root.rglob("*") if not path.is_relative_to(root / "good")}
    with served(Settings(root=tmp_path)) as client:
        answer = client.get("/v1/collections").json()
        assert [each["name"] for each in answer["collections"]] == ["good"]
        aside = {each["name"]: each["reason"] for each in answer["set_aside"]}
        assert set(aside) == {"cut", "other", "no-index", "damaged", "stray"}
        assert str(tmp_path) not in str(aside)
        for name in aside:
            at = f"/v1/collections/{name}"
            assert error(client.get(at)) == (409, "set_aside")
            assert error(client.delete(at)) == (409, "set_aside")
            assert error(client.post(f"{at}/items", json={"text": "a"})) == (409, "set_aside")
            assert error(client.post("/v1/collections", json={"name": name.upper()})) == (409, "exists")
        assert client.post("/v1/collections/good/search", json={"vector": unit(1)}).json()["hits"][0]["id"] == "a"
    assert {path: path.stat().st_mtime_ns for path in left} == left
    lines = [record.getMessage() for record in caplog.records if "set aside" in record.getMessage()]
    assert len(lines) == 5
    assert not any("\n" in line for line in lines)


def test_a_full_disk_takes_deletes_beside_what_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one group of changes too."""
    from vlm.index import flat

    write = flat.atomic_write

    def full(path: Path, content: bytes | str) -> None:
        if path.name != flat.MANIFEST:
            raise OSError(28, "No space left on device")
        write(path, content)

    with served(Settings(root=tmp_path, engine="flat")) as client:
        for n in range(8):
            client.post(f"{C}/items", files={"file": ("a.png", picture())}, data={"id": f"{n}"})
        with monkeypatch.context() as patch, ThreadPoolExecutor(9) as threads:
            patch.setattr(flat, "atomic_write", full)
            adds = [threads.submit(client.post, f"{C}/items", json={"id": f"x{n}", "text": "a"}) for n in range(4)]
            deletes = [threads.submit(client.delete, f"{C}/items/{n}") for n in range(5)]
            assert {error(add.result()) for add in adds} == {(503, "storage")}
            assert {delete.result().status_code for delete in deletes} == {200}
        assert client.get(C).json()["count"] == 3
        assert len(list((tmp_path / "collections/c/media").glob("*/*"))) == 3  # room that was freed
    with served(Settings(root=tmp_path, engine="flat")) as client:
        assert client.get(C).json()["count"] == 3
        assert client.post(f"{C}/items", json={"id": "x", "text": "a"}).status_code == 200


def test_logs_say_who_asked_and_what_was_changed(tmp_path: Path) -> None:
    keys = Keys({"r" * 20: "read", "w" * 20: "write"})
    files = {"access_log": tmp_path / "access", "audit_log": tmp_path / "audit"}
    with served(Settings(root=tmp_path / "root", **files), keys=keys) as client:
        write, read = ({"Authorization": f"Bearer {letter * 20}"} for letter in "wr")
        client.post(f"{C}/items", json={"items": [{"id": f"{n}", "text": "a"} for n in range(3)]}, headers=write)
        client.post(f"{C}/items", json={"id": "0", "text": "b"}, headers=write)
        client.post(f"{C}/search", json={"text": "a"}, headers=read)
        client.delete(f"{C}/items/a%0ab", headers=write)
        client.delete(f"{C}/items/1", headers=read)
        client.delete(f"{C}/items/1", headers=write)
        client.get(C)
    text = {name: path.read_text() for name, path in files.items()}
    access, audit = ([json.loads(line) for line in found.splitlines()] for found in text.values())
    assert [(line["method"], line["status"]) for line in audit] == [
        ("POST", 200), ("POST", 200), ("DELETE", 404), ("DELETE", 403), ("DELETE", 200),
    ]  # fmt: skip
    assert (audit[0]["added"], audit[0]["ids"]) == (3, ["0", "1", "2"])
    assert audit[1]["replaced"] == 1
    assert audit[3]["role"] == "read"
    assert len({line["key"] for line in audit if "key" in line}) == 2
    assert "r" * 20 not in str(text)
    asked = [line for line in access if line["path"].startswith("/v1")]
    assert [line["status"] for line in asked] == [200, 200, 200, 404, 403, 200, 401]
    assert all(line["ms"] >= 0 and line["client"] == "127.0.0.1" for line in asked)

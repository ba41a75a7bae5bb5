"""What fails half way changes nothing, and what a kill left half made goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import CLIP, error, picture, served, unit

from vlm.index.flat import FlatIndex
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

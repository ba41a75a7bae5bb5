"""Collections whose vectors are in a store elsewhere: kept over a restart, and gone from it when they are deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from greys import Greys
from serving import picture, served

from vlm.cli import main
from vlm.index import create_index
from vlm.server.embedding.embedder import Colours
from vlm.server.http.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


def test_a_store_of_qdrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qdrant_client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    # The client's local mode stands in for a server.
    store: Any = qdrant_client.QdrantClient(":memory:")
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda **how: store)
    settings = Settings(root=tmp_path, store="http://127.0.0.1:6333/")
    with served(settings) as client:
        assert client.post("/v1/collections", json={"name": "photos"}).status_code == 201
        files = [("files", (f"{color}.png", picture(color), "image/png")) for color in ("red", "blue")]
        added = client.post("/v1/collections/photos/items", files=files).json()["items"]
        assert len(added) == 2
    assert [found.name for found in store.get_collections().collections] == ["photos"]
    with served(settings) as client:
        hits = client.post("/v1/collections/photos/search", json={"text": "red", "top": 1}).json()["hits"]
        assert hits[0]["id"] == added[0]["id"]
        assert client.delete(f"/v1/collections/photos/items/{added[0]['id']}").status_code == 200
        hits = client.post("/v1/collections/photos/search", json={"text": "red", "top": 5}).json()["hits"]
        assert [hit["id"] for hit in hits] == [added[1]["id"]]
        assert client.delete("/v1/collections/photos").status_code == 200
    assert store.get_collections().collections == []


def test_an_index_of_qdrant_is_made_anew_by_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qdrant_client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    store: Any = qdrant_client.QdrantClient(":memory:")
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda **how: store)
    settings = Settings(root=tmp_path, store="http://127.0.0.1:6333/", originals=True)

    def names() -> list[str]:
        return [found.name for found in store.get_collections().collections]

    with served(settings, Colours) as client:
        for color in ("red", "blue"):
            files = {"file": (f"{color}.png", picture(color))}
            client.post("/v1/collections/photos/items", files=files, data={"id": color})
    assert main(["reindex", str(tmp_path), "--model", "greys"]) == 0
    (place,) = names()
    assert place.startswith("photos-")
    # What a kill leaves: the place of the old one or of the new one, whichever is not named.
    create_index(f"{settings.store}photos-dead", Colours.width, Colours.space).close()
    spare = tmp_path / "collections" / "photos" / "spare"
    spare.write_text(f"{settings.store}{place}\n{settings.store}photos-dead\n")
    with served(settings, Greys) as client:
        assert names() == [place]
        assert not spare.exists()
        hits = client.post("/v1/collections/photos/search", json={"text": "red", "top": 2}).json()["hits"]
        assert {hit["id"] for hit in hits} == {"red", "blue"}
        assert client.delete("/v1/collections/photos").status_code == 200
    assert names() == []

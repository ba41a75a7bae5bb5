"""An index of `vlm index` served as it is: read like a collection, never written to, shown below the media roots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import CLIP, error, ids, picture, served

from vlm.cli import main
from vlm.errors import BadInput
from vlm.index import create_index, open_index
from vlm.index.base import Vectors
from vlm.ingest.sources import open_source
from vlm.ingest.sync import sync
from vlm.media.open import Media
from vlm.server.embedding.embedder import Colours
from vlm.server.http.settings import Settings
from vlm.server.http.signing import Signer
from vlm.server.retrieval.opened import Opened
from vlm.server.retrieval.page_cards import Cards
from vlm.server.retrieval.run import serve

C = "/v1/collections/photos"


def embed(media: Sequence[Media]) -> Vectors:
    return Colours().embed_images([np.asarray(each.frames[0].convert("RGB")) for each in media])


def indexed(photos: Path, to: Path, engine: str = "flat", model: str = Colours.space) -> Path:
    """What `vlm index` does, of a model that needs no weights."""
    index = create_index(to, Colours.width, model, engine=engine)
    sync(index, open_source(str(photos)), embed)
    index.close()
    return to


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "red.png").write_bytes(picture("red"))
    (folder / "blue").write_bytes(picture("blue", kind="JPEG"))  # its content says what it is
    (folder / "clip.mp4").write_bytes(CLIP.read_bytes())
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("engine", ["flat", "lance"])
def test_it_is_searched_and_never_changed(tmp_path: Path, photos: Path, engine: str) -> None:
    folder = indexed(photos, tmp_path / "index", engine)
    index = open_index(folder)
    snapshot = index.snapshot()
    index.delete([str(photos / "blue")])
    index.commit()
    index.close()
    before = content(folder)
    with served(Settings(root=tmp_path / "root", opened={"photos": folder})) as client:
        assert client.get("/v1/collections").json()["collections"][0]["name"] == "photos"
        assert client.get(C).json()["count"] == 2
        red, blue = str(photos / "red.png"), str(photos / "blue")
        assert ids(client.post(f"{C}/search", json={"text": "red"}))[0] == red
        assert blue not in ids(client.post(f"{C}/search", json={"text": "blue"}))
        assert ids(client.post(f"{C}/search", json={"text": "blue", "snapshot": snapshot}))[0] == blue
        assert client.get(f"{C}/snapshots").json() == {"snapshots": [{"id": snapshot}]}
        assert [each["id"] for each in client.get(f"{C}/items").json()["items"]] == sorted(
            [red, str(photos / "clip.mp4")]
        )
        item = f"{C}/items/{red.replace('/', '%2F')}"
        assert client.get(item).json()["metadata"]["file"]["from"] == str(photos)
        for refused in (
            client.post(f"{C}/items", json={"text": "more"}),
            client.post(f"{C}/items", files={"file": ("a.png", picture())}),
            client.delete(item),
            client.patch(item, json={"metadata": {"n": 1}}),
            client.post(f"{C}/items/delete", json={"filter": {}}),
            client.post(f"{C}/items/update", json={"filter": {}, "metadata": {"n": 1}}),
            client.post(f"{C}/snapshots"),
            client.delete(f"{C}/snapshots/{snapshot}"),
            client.delete(C),
        ):
            assert error(refused) == (409, "read_only")
        assert error(client.post("/v1/collections", json={"name": "Photos"})) == (409, "exists")
        assert client.get(C).json()["count"] == 2
    assert content(folder) == before


def shown(client: httpx.Client, path: Path, what: str = "thumbnails") -> httpx.Response:
    return client.get(f"{C}/{what}/{str(path).replace('/', '%2F')}")


def test_what_lies_below_the_media_roots_is_shown(tmp_path: Path, photos: Path) -> None:
    folder = indexed(photos, tmp_path / "index")
    with served(Settings(root=tmp_path / "root", opened={"photos": folder}, media=(photos,))) as client:
        for name, colour in (("red.png", (254, 0, 0)), ("blue", (0, 0, 254))):
            answer = shown(client, photos / name)
            assert answer.headers["content-type"] == "image/jpeg"
            pixel = np.array(Image.open(io.BytesIO(answer.content)).getpixel((5, 5)))
            assert np.abs(pixel - colour).max() < 12
        assert Image.open(io.BytesIO(shown(client, photos / "clip.mp4").content)).width == 320
        clip = shown(client, photos / "clip.mp4", "videos")
        assert (clip.headers["content-type"], clip.content) == ("video/mp4", CLIP.read_bytes())
        assert error(shown(client, photos / "red.png", "videos")) == (404, "media_not_found")
        (photos / "red.png").write_text("no picture any more")
        assert error(shown(client, photos / "red.png")) == (404, "media_not_found")
        (photos / "blue").unlink()
        (photos / "blue").symlink_to(tmp_path / "index" / "manifest.json")
        assert error(shown(client, photos / "blue")) == (404, "media_not_found")
        (photos / "other.png").write_bytes(picture())  # below the root, and not of the index
        assert error(shown(client, photos / "other.png")) == (404, "item_not_found")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for roots in ((), (elsewhere,)):
        with served(Settings(root=tmp_path / "root", opened={"photos": folder}, media=roots)) as client:
            for what in ("thumbnails", "videos"):
                assert error(shown(client, photos / "clip.mp4", what)) == (404, "media_not_found")


def test_the_page_draws_what_is_shown(tmp_path: Path, photos: Path) -> None:
    folder, cards = indexed(photos, tmp_path / "index"), Cards(Signer())
    with ThreadPoolExecutor(1) as readers:
        for roots, drawn in (([photos], ["<img", "<video", "<img"]), ([], ["<div", "<div", "<div"])):
            opened = Opened("photos", folder, lambda snapshot: open_index(folder), readers, roots)
            for name, tag in zip(("red.png", "clip.mp4", "blue"), drawn, strict=True):
                card = cards.entry(opened, str(photos / name), {})
                assert card.index(tag) < card.index("<figcaption>")


def test_another_models_or_a_damaged_one_is_set_aside(tmp_path: Path, photos: Path) -> None:
    other = indexed(photos, tmp_path / "other", model="other-1")
    damaged = indexed(photos, tmp_path / "damaged")
    (damaged / "manifest.json").write_text("{")
    opened = {"other": other, "damaged": damaged, "photos": indexed(photos, tmp_path / "index")}
    with served(Settings(root=tmp_path / "root", opened=opened)) as client:
        answer = client.get("/v1/collections").json()
        assert [each["name"] for each in answer["collections"]] == ["photos"]
        reasons = {each["name"]: each["reason"] for each in answer["set_aside"]}
        assert "of model colours-1, got one of other-1" in reasons["other"]
        assert "manifest.json cannot be read" in reasons["damaged"]
        assert str(tmp_path) not in str(reasons)
        assert error(client.get("/v1/collections/other")) == (409, "set_aside")


def test_what_cannot_be_opened_is_refused_in_one_line(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = indexed(photos, tmp_path / "index")
    for options in (
        ["--open", f"photos={photos}"], ["--open", f"photos={tmp_path / 'none'}"], ["--open", str(folder)],
        ["--open", f"a/b={folder}"], ["--open", "photos="], ["--open", f"a={folder}", "--open", f"A={folder}"],
    ):  # fmt: skip
        words = ["serve", "retrieval", "--root", str(tmp_path / "r"), "--port", "0", "--no-page", "--model", "colours"]
        assert main([*words, *options]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "--open" in told


def test_a_collection_of_the_same_name_stops_the_start(tmp_path: Path, photos: Path) -> None:
    with served(Settings(root=tmp_path / "root")) as client:
        client.post("/v1/collections", json={"name": "Photos"})
    settings = Settings(root=tmp_path / "root", opened={"photos": indexed(photos, tmp_path / "index")})
    with pytest.raises(BadInput, match="expected another name"):
        serve(settings, [Colours], host="127.0.0.1", port=0, keys=None)

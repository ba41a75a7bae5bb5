"""`vlm upload`: a server's collection has what an index of the same source has, whatever happens on the way."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from chatting import Script, chatting
from serving import CLIP, ServerProcess, picture, served, unit

from vlm.cli import main
from vlm.facade import Model
from vlm.index.flat import FlatIndex
from vlm.ingest.sources import open_source
from vlm.ingest.sync import sync
from vlm.ingest.upload import upload
from vlm.media.open import Media
from vlm.remote import KEY, Server
from vlm.server.embedding.embedder import Colours
from vlm.server.http import sources as server_sources
from vlm.server.http.auth import Keys
from vlm.server.http.settings import Limits, Settings

pytestmark = pytest.mark.process
NAMES = ("red", "lime", "blue", "yellow", "orange")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.png").write_bytes(picture(name))
    (folder / "clip.mp4").write_bytes(CLIP.read_bytes())
    return folder


def sources(photos: Path) -> dict[str, Path]:
    """One of each kind, of the same pictures."""
    home, files = photos.parent, [photos / f"{name}.png" for name in NAMES]
    (home / "list.txt").write_text("\n".join([f"photos/{file.name}" for file in files] + ["photos/../photos/clip.mp4"]))
    rows = [f"{file},{2000 + number},a {file.stem} wall" for number, file in enumerate(files)]
    (home / "table.csv").write_text("\n".join(["path,year,text", *rows]))
    lines = [{"image": str(file), "tags": ["wall", file.stem], "_row": n} for n, file in enumerate(files)]
    (home / "table.jsonl").write_text("\n".join(map(json.dumps, lines)))
    images = [{"id": n, "file_name": f"photos/{file.name}"} for n, file in enumerate(files)]
    captions = [{"id": n, "image_id": n, "caption": f"a {file.stem} wall"} for n, file in enumerate(files)]
    (home / "coco.json").write_text(json.dumps({"images": images, "annotations": captions}))
    with tarfile.open(home / "shard.tar", "w") as shard:
        for file in [*files, photos / "clip.mp4"]:
            shard.add(file, file.name)
    return {"folder": photos} | {
        name: home / name for name in ("list.txt", "table.csv", "table.jsonl", "coco.json", "shard.tar")
    }


def sent(client: httpx.Client, source: Path, name: str = "c", **options: Any) -> Any:
    server = Server(str(client.base_url), patience=20)
    client.post("/v1/collections", json={"name": name})
    return upload(server, name, open_source(str(source)), **options)


def entries(client: httpx.Client, name: str = "c") -> dict[str, dict[str, Any]]:
    hits = client.post(f"/v1/collections/{name}/search", json={"vector": unit(1), "top": 900}).json()["hits"]
    return {
        hit["id"]: {key: value for key, value in hit["metadata"].items() if not key.startswith("_")} for hit in hits
    }


def embedded(media: list[Media]) -> np.ndarray:
    rows = [Colours().embed_images([np.asarray(frame) for frame in one.frames]).mean(axis=0) for one in media]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def test_every_kind_of_source_is_what_an_index_of_it_is(photos: Path, tmp_path: Path) -> None:
    with served(Settings(root=tmp_path / "root", engine="flat")) as client:
        for number, (kind, source) in enumerate(sources(photos).items()):
            name = f"c{number}"
            done = sent(client, source, name)
            index = FlatIndex.create(tmp_path / f"i{number}", Colours.width, Colours.space)
            local = sync(index, open_source(str(source)), embedded, sampling=lambda: Colours().sampling)
            assert (done.sent, done.skipped, local.skipped) == (local.indexed, [], []), kind
            assert done.sent == len(NAMES) + (kind in ("folder", "list.txt", "shard.tar"))
            wanted = {
                os.path.normpath(id): {key: value for key, value in metadata.items() if not key.startswith("_")}
                for id, metadata in index.items()
            }
            assert entries(client, name) == json.loads(json.dumps(wanted)), kind
            for text in ("red", "a yellow wall"):
                hits = client.post(f"/v1/collections/{name}/search", json={"text": text, "top": 10}).json()["hits"]
                here = index.search(Colours().embed_texts([text]), 10)[0]
                assert [hit["id"] for hit in hits] == [os.path.normpath(hit.id) for hit in here], kind
                assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in here], abs=1e-5)
            again = sent(client, source, name)
            assert (again.sent, again.unchanged) == (0, done.sent), kind
            if kind == "table.jsonl":
                assert any("begin with _ (_row)" in line for line in done.notes.lines())
            index.close()


def test_only_what_has_changed_is_sent_again(photos: Path, tmp_path: Path) -> None:
    with served(Settings(root=tmp_path / "root")) as client:
        assert sent(client, photos).sent == 6
        os.utime(photos / "red.png")  # the same content
        (photos / "blue.png").write_bytes(picture("gray"))
        (photos / "pink.png").write_bytes(picture("pink"))
        done = sent(client, photos)
        assert (done.sent, done.unchanged) == (2, 5)
        assert len(entries(client)) == 7
        (photos / "pink.png").unlink()  # nothing is deleted on the server
        assert (sent(client, photos).unchanged, len(entries(client))) == (6, 7)
        table = tmp_path / "t.csv"
        for text in ("a wall", "a fence"):  # other words of the same picture
            table.write_text(f"path,text\n{photos / 'red.png'},{text}\n")
            assert sent(client, table, "t").sent == 1
        assert [row["text"] for row in entries(client, "t").values()] == ["a fence"]


def test_a_bad_item_is_its_own(photos: Path, tmp_path: Path) -> None:
    """What cannot be read, what the server cannot use, what it cannot name, and what is over its limits."""
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "large.bmp").write_bytes(picture("red", (500, 500), "BMP"))
    (photos / "many.png").write_bytes(picture("red", (400, 400)))
    deep = photos / ("d" * 200) / ("e" * 200) / ("f" * 150)
    deep.mkdir(parents=True)
    (deep / "far.png").write_bytes(picture("red"))
    limits = Limits(image_bytes=200_000, pixels=100_000, batch=4, metadata_bytes=2000)
    with served(Settings(root=tmp_path / "root", limits=limits)) as client:
        done = sent(client, photos)
        reasons = {Path(skip.input).name: skip.reason for skip in done.skipped}
        assert done.sent == 6
        assert set(reasons) == {"broken.png", "empty.jpg", "large.bmp", "many.png", "far.png"}
        assert "begins with b'no picture'" in reasons["broken.png"]
        assert "got nothing" in reasons["empty.jpg"]
        assert "at most 200000 bytes" in reasons["large.bmp"]
        assert "100000" in reasons["many.png"]
        assert "at most 512 characters" in reasons["far.png"]
        assert all(str(photos) in reason for reason in reasons.values())
        table = tmp_path / "t.csv"
        table.write_text(f"path,text\n{photos / 'red.png'},{'word ' * 4000}\n{photos / 'blue.png'},short\n")
        done = sent(client, table, "t")
        assert (done.sent, len(done.skipped)) == (1, 1)
        assert "metadata: expected at most 2000 bytes" in done.skipped[0].reason


def test_content_decides_what_a_file_is(photos: Path, tmp_path: Path) -> None:
    (photos / "clip.mp4").rename(photos / "a clip")
    (photos / "red.png").rename(photos / "red.mp4")
    with served(Settings(root=tmp_path / "root")) as client:
        assert sent(client, photos).skipped == []
        hits = client.post("/v1/collections/c/search", json={"vector": unit(1), "top": 9}).json()["hits"]
        kinds = {Path(hit["id"]).name: hit["metadata"]["_kind"] for hit in hits}
        assert (kinds["a clip"], kinds["red.mp4"]) == ("video", "image")


def test_urls_are_fetched_where_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(who: str) -> Any:
        def fetched(url: str, **options: Any) -> bytes:
            asked.append(who)
            return picture("red")

        return fetched

    monkeypatch.setattr(server_sources, "fetch_url", fetch("server"))
    monkeypatch.setattr("vlm.ingest.upload_parts.fetch_url", fetch("client"))
    urls = tmp_path / "urls.txt"
    urls.write_text("https://example.com/a.png\nhttps://example.com/b.png\n")
    for takes, who in ((True, "server"), (False, "client")):
        with served(Settings(root=tmp_path / who, urls=takes)) as client:
            assert sent(client, urls).sent == 2
            assert set(entries(client)) == {"https://example.com/a.png", "https://example.com/b.png"}
            assert sent(client, urls).unchanged == 2
        assert asked == [who] * 2
        asked.clear()
    with served(Settings(root=tmp_path / "offline")) as client:
        assert len(sent(client, urls, offline=True).skipped) == 2


def test_the_command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    keys = Keys({"w" * 20: "write", "r" * 20: "read"})
    (photos / "broken.png").write_bytes(b"no picture")
    with served(Settings(root=tmp_path / "root"), keys=keys) as client:
        url = str(client.base_url).rstrip("/")

        def run(*words: object) -> tuple[int, str, str]:
            code = main(["upload", *map(str, words)])
            return code, *capsys.readouterr()

        monkeypatch.delenv(KEY, raising=False)
        code, _, err = run(photos, "--to", url)
        assert (code, err.count("\n")) == (2, 1)
        assert f"the key is read from ${KEY}" in err
        monkeypatch.setenv(KEY, "r" * 20)
        assert run(photos, "--to", url)[0] == 2
        monkeypatch.setenv(KEY, "w" * 20)
        code, out, err = run(photos, "--to", url, "--json")
        found = json.loads(out)
        assert (code, found["collection"], found["sent"], found["unchanged"]) == (2, "photos", 6, 0)
        assert [Path(skip["path"]).name for skip in found["skipped"]] == ["broken.png"]
        assert "made the collection photos" in err
        (photos / "broken.png").unlink()
        code, out, _ = run(photos, "--to", f"{url}/v1/collections/photos")
        assert (code, out.split(": ")[1]) == (0, "0 sent, 6 there already, 0 skipped\n")
    for address in (f"{url}/photos", "photos", f"{url}/a/b", f"{url}/..", "http://user:secret@host/c"):
        code, _, err = run(photos, "--to", address)
        assert (code, err.count("\n")) == (2, 1), err
        assert "secret" not in err


def test_a_busy_server_and_a_lost_connection_are_waited_for(photos: Path, tmp_path: Path) -> None:
    """Refusals of whole requests, of single items, and an answer that never comes."""
    with served(Settings(root=tmp_path / "root")) as client:
        troubles = iter(["busy", "lost", "unavailable", "item"])

        def handle(request: httpx.Request) -> httpx.Response:
            request.read()
            if request.method == "POST" and request.url.path.endswith("/items"):
                trouble = next(troubles, "")
                error = {"error": {"code": "busy", "message": "later"}}
                if trouble == "busy":
                    return httpx.Response(429, json=error, headers={"Retry-After": "0"})
                if trouble == "unavailable":
                    return httpx.Response(503, json=error, headers={"Retry-After": "0"})
                if trouble == "item":
                    refused = {"id": None, "status": "refused", **error}
                    return httpx.Response(200, json={"items": [refused] * 6})
                answer = client.request(request.method, request.url, content=request.content, headers=request.headers)
                if trouble == "lost":
                    raise httpx.ReadError("the connection was reset")
                return httpx.Response(answer.status_code, content=answer.content)
            return client.request(request.method, request.url, content=request.content, headers=request.headers)

        client.post("/v1/collections", json={"name": "c"})
        through = httpx.Client(transport=httpx.MockTransport(handle), base_url=client.base_url)
        done = upload(Server(str(client.base_url), through, patience=20), "c", open_source(str(photos)))
        assert (done.sent, done.skipped) == (6, [])
        assert len(entries(client)) == 6


@pytest.mark.weights
def test_nano_finds_on_the_server_what_it_finds_in_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = CLIP.parent
    server = ServerProcess(tmp_path / "root", model="nano")
    assert main(["upload", str(samples), "--to", f"{server.client.base_url}".rstrip("/") + "/c"]) == 0
    assert main(["index", str(samples), "--to", str(tmp_path / "index")]) == 0
    for text in ("a cup of coffee", "a city at night"):
        hits = server.client.post("/v1/collections/c/search", json={"text": text, "top": 5}).json()["hits"]
        capsys.readouterr()
        assert main(["search", str(tmp_path / "index"), text, "--top", "5", "--json"]) == 0
        here = json.loads(capsys.readouterr().out)["results"]
        assert [Path(hit["id"]).name for hit in hits] == [Path(row["path"]).name for row in here]
        assert [hit["score"] for hit in hits] == pytest.approx([row["score"] for row in here], abs=1e-4)
    assert server.end() == 0


def test_a_server_without_collections_is_named(
    photos: Path, tiny_model: Model, capfd: pytest.CaptureFixture[str]
) -> None:
    with chatting(tiny_model, Script()) as client:
        address = f"{client.base_url}".rstrip("/")
        assert main(["upload", str(photos), "--to", f"{address}/c"]) == 2
    expected = "expected a server of collections (`vlm serve retrieval` or `vlm serve all`)"
    assert capfd.readouterr().err == f"vlm: {address}: {expected}, got 'vlm chat', which keeps none\n"

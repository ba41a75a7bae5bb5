"""What was answered is there after a kill; what was accepted is finished at a shutdown."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving import CLIP, VLM, ServerProcess, error, picture, served, unit, wait

from vlm.cli import main
from vlm.errors import BadInput
from vlm.index.flat import FlatIndex
from vlm.server.http.settings import Settings
from vlm.server.retrieval.embedder import Colours
from vlm.server.retrieval.run import serve

pytestmark = pytest.mark.process

C = "/v1/collections/c"


def test_every_answered_write_survives_a_kill(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.client.post("/v1/collections", json={"name": "c"})
    written: dict[str, list[float]] = {}
    deleted: set[str] = set()

    def write(worker: int) -> None:
        rng = np.random.default_rng(worker)
        try:
            with httpx.Client(base_url=server.client.base_url, timeout=20) as client:
                for n in range(10_000):
                    id, vector = f"{worker}-{n}", rng.standard_normal(64)
                    row = (vector / np.linalg.norm(vector)).tolist()
                    answer = client.post(f"{C}/items", json={"id": id, "vector": row, "metadata": {"n": n}})
                    if answer.json()["items"][0]["status"] == "added":
                        written[id] = row
                    if n % 5 == 4 and client.delete(f"{C}/items/{worker}-{n - 2}").status_code == 200:
                        deleted.add(f"{worker}-{n - 2}")
        except httpx.HTTPError:
            pass  # the server is dead

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    wait(lambda: len(deleted) >= 4)
    server.end(signal.SIGKILL)
    for thread in threads:
        thread.join()

    again = ServerProcess(tmp_path)
    live = {id: row for id, row in written.items() if id not in deleted}
    assert len(live) > 10
    for id, row in live.items():
        answer = again.client.post(f"{C}/search", json={"vector": row, "top": 1})
        hits = answer.json()["hits"]
        if hits[0]["id"] != id:  # a delete whose answer was lost
            assert int(id.partition("-")[2]) % 5 == 2, id
            continue
        assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    for id in deleted:
        assert error(again.client.get(f"{C}/items/{id}")) == (404, "item_not_found")
    assert again.end() == 0


def test_a_termination_finishes_what_was_accepted(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.client.post("/v1/collections", json={"name": "c"})
    answers: list[httpx.Response] = []

    def add(n: int) -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=20) as client:
            files = [("file", (f"{i}.png", picture((n, i, 0)))) for i in range(16)]
            answers.append(client.post(f"{C}/items", files=files))

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    begun = re.compile(r'vlm_embedding_batch_count{kind="image"} [1-9]')
    wait(lambda: begun.search(server.client.get("/metrics").text))
    assert server.end() == 0
    for thread in threads:
        thread.join()
    again = ServerProcess(tmp_path)
    accepted = sum(len(answer.json()["items"]) for answer in answers if answer.status_code == 200)
    assert again.client.get(C).json()["count"] == accepted > 0
    assert again.end(signal.SIGINT) == 0


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


def test_a_folder_of_another_model_or_in_use_is_refused(tmp_path: Path) -> None:
    class Other(Colours):
        space = "other-1"

    settings = Settings(root=tmp_path)
    with served(settings) as client:
        client.post("/v1/collections", json={"name": "c"})
    with pytest.raises(BadInput, match="of model other-1, got one of colours-1"):
        serve(settings, Other, host="127.0.0.1", port=0, keys=None)
    server = ServerProcess(tmp_path)
    with pytest.raises(BadInput, match="no other server"):
        serve(settings, Colours, host="127.0.0.1", port=0, keys=None)
    port = server.client.base_url.port
    command = [sys.executable, "-c", VLM, "serve", "retrieval", "--model", "colours", "--no-page"]
    taken = subprocess.run(
        [*command, "--root", str(tmp_path / "other"), "--port", str(port)], capture_output=True, text=True
    )
    assert taken.returncode == 1
    assert "cannot listen there" in taken.stderr.splitlines()[-1]
    assert server.end() == 0


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text("read short")
    for options, code in (
        (["--host", "0.0.0.0"], 2),
        (["--keys", tmp_path / "keys"], 2),
        (["--media", tmp_path / "none"], 2),
        (["--model", "nanoo"], 2),
        (["--engine", "flatt"], 2),
    ):
        model = [] if "--model" in options else ["--model", "colours"]
        words = ["serve", "retrieval", "--root", tmp_path / "r", "--port", "0", "--no-page", *model, *options]
        assert main([str(word) for word in words]) == code
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.weights
def test_nano_finds_what_it_finds_without_a_server(tmp_path: Path) -> None:
    from serving import REPOSITORY

    server = ServerProcess(tmp_path, "--media", str(REPOSITORY / "data/samples"), model="nano")
    server.client.post("/v1/collections", json={"name": "c"})
    items = [{"id": name, "path": f"{name}.jpg"} for name in ("cat", "rocket", "coffee", "koala")]
    assert server.client.post(f"{C}/items", json={"items": items}, timeout=120).status_code == 200
    found = server.client.post(f"{C}/search", json={"text": "a cup of coffee"}).json()["hits"]
    assert server.client.get(C).json()["model"] == "nano"
    picture = base64.b64encode((REPOSITORY / "data/samples/coffee.jpg").read_bytes()).decode()
    composed = server.client.post(f"{C}/search", json={"text": "a cat", "image": picture, "weight": 0.7}).json()["hits"]
    usage = server.client.post("/v1/embeddings", json={"input": ["a cup of coffee", "cats"]}).json()["usage"]
    assert server.end() == 0

    import vlm

    model = vlm.load("nano")
    assert usage["prompt_tokens"] == sum(model.count_tokens(["a cup of coffee", "cats"])) == 4 + 1 + 2 * 2
    vectors = model.embed_images([REPOSITORY / f"data/samples/{item['path']}" for item in items])
    query = model.compose(REPOSITORY / "data/samples/coffee.jpg", "a cat", weight=0.7)
    for hits, vector in ((found, model.embed_texts(["a cup of coffee"])[0]), (composed, query)):
        scores = dict(zip([item["id"] for item in items], vectors @ vector, strict=True))
        assert [hit["id"] for hit in hits] == sorted(scores, key=lambda id: -scores[id])
        for hit in hits:
            assert hit["score"] == pytest.approx(float(scores[hit["id"]]), abs=1e-5)

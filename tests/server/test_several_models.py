"""Several models in one server: a collection is of one of them, and everything asked of it is that model's."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from greys import Greys
from serving import CLIP, ServerProcess, error, ids, picture, served, wait

from vlm.cli import main
from vlm.errors import BadInput
from vlm.index import create_index
from vlm.server.embedding.embedder import Colours
from vlm.server.http.metrics import Metrics
from vlm.server.http.settings import Settings
from vlm.server.http.signing import Signer
from vlm.server.retrieval.items import add
from vlm.server.retrieval.run import serve
from vlm.server.retrieval.schemas import Item
from vlm.server.retrieval.service import Service

GREYS = "/v1/collections/greys"
COLOURS = "/v1/collections/colours"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of two models with a collection of each, alike."""
    with served(Settings(root=tmp_path_factory.mktemp("root")), Colours, Greys) as client:
        for name in ("colours", "greys"):
            assert client.post("/v1/collections", json={"name": name, "model": name}).status_code == 201
            for colour in ("red", "green", "white"):
                files = {"file": (f"{colour}.png", picture(colour))}
                assert client.post(f"/v1/collections/{name}/items", files=files, data={"id": colour}).is_success
        yield client


def test_a_collection_is_of_the_model_it_was_made_with(both: httpx.Client) -> None:
    assert both.get(GREYS).json() == {"name": "greys", "count": 3, "model": "greys", "width": 16}
    assert both.get(COLOURS).json() == {"name": "colours", "count": 3, "model": "colours", "width": 64}
    assert both.post("/v1/collections", json={"name": "plain"}).json()["model"] == "colours"
    both.post("/v1/collections/first/items", json={"text": "red"})
    assert both.get("/v1/collections/first").json()["model"] == "colours"
    for name in ("plain", "first"):
        both.delete(f"/v1/collections/{name}")


def test_uploads_and_searches_are_of_that_model(both: httpx.Client) -> None:
    vector = both.get(f"{GREYS}/items/red", params={"vector": True}).json()["vector"]
    assert np.array(vector) == pytest.approx(Greys().embed_images([np.full((2, 2, 3), (255, 0, 0), np.uint8)])[0])
    assert ids(both.post(f"{GREYS}/search", json={"text": "brown", "top": 1})) == ["red"]  # 79 and 85 of 255
    assert ids(both.post(f"{COLOURS}/search", json={"text": "white", "top": 1})) == ["white"]
    asked = {"queries": [{"vector": vector}, {"image": b64encode(picture("red")).decode()}], "top": 1}
    for result in both.post(f"{GREYS}/search", json=asked).json()["results"]:
        assert [(hit["id"], pytest.approx(hit["score"])) for hit in result["hits"]] == [("red", 1)]
    assert error(both.post(f"{COLOURS}/search", json={"vector": vector})) == (422, "invalid")


def test_clips_moments_and_pictures_of_queries_too(both: httpx.Client) -> None:
    assert both.post(f"{GREYS}/items", files={"file": ("clip.mp4", CLIP.read_bytes())}, data={"id": "clip"}).is_success
    hit = both.post(f"{GREYS}/search", json={"text": "black", "top": 1}).json()["hits"][0]
    assert hit["id"] == "clip"
    assert hit["moment"] is not None
    both.delete(f"{GREYS}/items/clip")


def test_vectors_are_asked_for_by_a_models_name(both: httpx.Client) -> None:
    models = both.get("/v1/models").json()
    assert [(one["id"], one["width"]) for one in models["data"]] == [("colours", 64), ("greys", 16)]
    for name, width in ((None, 64), ("colours", 64), ("greys", 16)):
        answer = both.post("/v1/embeddings", json={"input": ["red"], "model": name}).json()
        assert answer["model"] == (name or "colours")
        assert len(answer["data"][0]["embedding"]) == width
    assert error(both.post("/v1/embeddings", json={"input": "a", "model": "greys", "dimensions": 64})) == (
        422,
        "invalid",
    )


def test_an_unknown_model_is_told_with_the_nearest(both: httpx.Client) -> None:
    refused = both.post("/v1/collections", json={"name": "x", "model": "grays"})
    assert error(refused) == (422, "invalid")
    assert refused.json()["error"]["message"] == "unknown model 'grays'; did you mean 'greys'?"
    refused = both.post("/v1/embeddings", json={"input": "red", "model": "colour"})
    assert error(refused) == (404, "model_not_found")  # as OpenAI's
    assert "did you mean 'colours'?" in refused.json()["error"]["message"]
    assert error(both.get("/v1/collections/x")) == (404, "collection_not_found")


def test_metrics_are_of_each(both: httpx.Client) -> None:
    text = both.get("/metrics").text
    for name in ("colours", "greys"):
        assert f'vlm_embedding_batch_count{{kind="image",model="{name}"}}' in text
        assert f'vlm_embedding_queue{{kind="text",model="{name}"}} 0.0' in text
        assert f'vlm_items{{collection="{name}"}} 3.0' in text


def test_one_that_is_slow_holds_up_no_other(tmp_path: Path) -> None:
    go = threading.Event()

    class Slow(Greys):
        def embed_images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
            assert go.wait(30)
            return super().embed_images(pictures)

    with served(Settings(root=tmp_path), Colours, Slow) as client, ThreadPoolExecutor(1) as threads:
        client.post("/v1/collections", json={"name": "greys", "model": "greys"})
        files = [("file", (f"{n}.png", picture((n, n, n)))) for n in range(60)]
        upload = threads.submit(client.post, f"{GREYS}/items", files=files)
        wait(lambda: 'vlm_embedding_batch_count{kind="image",model="greys"} 1.0' in client.get("/metrics").text)
        assert client.post(f"{COLOURS}/items", files={"file": ("a.png", picture())}).is_success
        go.set()
        assert upload.result().is_success


def test_what_is_of_a_model_that_is_not_served_is_set_aside(tmp_path: Path) -> None:
    index = create_index(tmp_path / "opened", Greys.width, Greys.space, engine="flat")
    index.commit()
    index.close()
    settings = Settings(root=tmp_path / "root", opened={"opened": tmp_path / "opened"})
    with served(settings, Greys, Colours) as client:
        for name in ("greys", "colours"):
            client.post("/v1/collections", json={"name": name, "model": name})
        there = client.get("/v1/collections").json()["collections"]
        assert {one["name"]: one["model"] for one in there} == {
            "colours": "colours", "greys": "greys", "opened": "greys",
        }  # fmt: skip
    with served(settings, Colours) as client:
        told = {one["name"]: one["reason"] for one in client.get("/v1/collections").json()["set_aside"]}
        assert set(told) == {"greys", "opened"}
        assert "expected a collection of model colours-1, got one of greys-1; `vlm reindex`" in told["greys"]
        assert "expected an index of model colours-1, got one of greys-1" in told["opened"]
        assert client.get(COLOURS).json()["model"] == "colours"


@pytest.mark.process
def test_the_command_takes_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    server = ServerProcess(tmp_path, "--module", "greys", "--model", "greys")
    assert [one["id"] for one in server.client.get("/v1/models").json()["data"]] == ["colours", "greys"]
    assert server.end() == 0


def test_a_model_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "retrieval", "--root", str(tmp_path), "--model", "colours", "--model", "colours", "--no-page"]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_of_one_space_stop_the_start(tmp_path: Path) -> None:
    class Same(Colours):
        name = "same"

    with pytest.raises(BadInput, match="models of different spaces, got two of space colours-1"):
        serve(Settings(root=tmp_path), [Colours, Same], host="127.0.0.1", port=0, keys=None)


def test_the_page_searches_a_collection_of_any_model(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (pip: vlm[page])")
    from vlm.server.retrieval.page import _Handlers

    async def cards(words: str) -> tuple[str, str]:
        service = Service(Settings(root=tmp_path, engine="flat"), [Colours(), Greys()], Metrics())
        try:
            await service.collections.open()
            collection = await service.collections.create("c", Greys.space)
            content = [Item(id=colour, image=b64encode(picture(colour)).decode()) for colour in ("red", "white")]
            await add(service, collection, content)
            page = _Handlers(lambda: service, False, Signer(), lambda **about: None)
            return await page.words("c", "everything", -1, "", words)
        finally:
            await service.close()

    note, found = asyncio.run(cards("brown"))
    assert note == "2 of 2 in c"
    assert found.index('data-id="red"') < found.index('data-id="white"')

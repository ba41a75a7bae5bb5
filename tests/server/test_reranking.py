"""The best of a search by words in the order of a model that looks at them again."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import CLIP, REPOSITORY, error, ids, picture, served, unit

from vlm.server.embedding.embedder import Colours, loaded
from vlm.server.http.settings import Limits, Settings

C = "/v1/collections/c"


class Matching(Colours):
    """The darker, the better: minus the mean of the pixels."""

    def match(self, pictures: Sequence[bytes], texts: Sequence[str]) -> list[float]:
        assert len(pictures) == len(texts)
        return [-float(np.asarray(Image.open(io.BytesIO(content))).mean()) for content in pictures]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = Settings(root=tmp_path_factory.mktemp("root"), limits=Limits(rerank=5))
    with served(settings, Matching) as found:
        for id, reds in (("a", 250), ("b", 210), ("c", 255), ("d", 230)):  # all of them red, so alike by their vectors
            files = {"file": ("a.png", picture((reds, 0, 0)))}
            assert found.post(f"{C}/items", files=files, data={"id": id}).status_code == 200
        found.post(f"{C}/items", json={"id": "far", "vector": unit(0, 1)})
        yield found


def test_the_best_are_ordered_by_how_well_they_fit(client: httpx.Client) -> None:
    plain = client.post(f"{C}/search", json={"text": "red", "top": 5}).json()["hits"]
    assert [hit["match"] for hit in plain] == [None] * 5
    order = [hit["id"] for hit in plain]
    assert order[4] == "far"
    again = client.post(f"{C}/search", json={"text": "red", "top": 5, "rerank": 5})
    assert ids(again) == ["b", "d", "a", "c", "far"]
    hits = again.json()["hits"]
    assert [hit["match"] for hit in hits[:4]] == sorted((hit["match"] for hit in hits[:4]), reverse=True)
    assert hits[4]["match"] is None  # nothing to look at
    assert {hit["id"]: hit["score"] for hit in hits} == {hit["id"]: hit["score"] for hit in plain}
    two = client.post(f"{C}/search", json={"text": "red", "top": 5, "rerank": 2})
    assert ids(two) == [id for id in "bdac" if id in order[:2]] + order[2:]
    best = client.post(f"{C}/search", json={"text": "red", "top": 1, "rerank": 4})  # of more than are asked for
    assert ids(best) == ["b"]
    assert ids(client.post(f"{C}/search", json={"text": "red", "top": 2, "offset": 1, "rerank": 4})) == ["d", "a"]


@pytest.mark.parametrize(
    "asked",
    [
        {"vector": unit(1)}, {"id": "a"}, {"text": "red", "rerank": 6}, {"text": "red", "rerank": 0},
        {"text": "red", "image": "AAAA"}, {"text": "red", "snapshot": "s1"}, {"queries": [{"text": "red"}]},
    ],
)  # fmt: skip
def test_it_is_for_one_search_by_words(client: httpx.Client, asked: dict[str, Any]) -> None:
    assert error(client.post(f"{C}/search", json={"rerank": 2, **asked})) == (422, "invalid")


def test_a_clip_is_looked_at_by_its_beginning(client: httpx.Client) -> None:
    client.post(f"{C}/items", files={"file": ("clip.mp4", CLIP.read_bytes())}, data={"id": "clip"})
    try:
        hits = client.post(f"{C}/search", json={"text": "black", "top": 1, "rerank": 1}).json()["hits"]
        shown = client.get(f"{C}/thumbnails/clip").content
        assert [(hit["id"], hit["match"]) for hit in hits] == [("clip", Matching().match([shown], [""])[0])]
    finally:
        client.delete(f"{C}/items/clip")


def test_a_model_that_does_not_write_refuses(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path)) as client:
        client.post(f"{C}/items", files={"file": ("a.png", picture())})
        refused = client.post(f"{C}/search", json={"text": "red", "rerank": 1})
        assert error(refused) == (400, "bad_input")
        assert "expected one that writes, like nano" in refused.json()["error"]["message"]


@pytest.mark.weights
def test_nano_orders_as_it_does_without_a_server(tmp_path: Path) -> None:
    import vlm

    names, text = ("cat", "coffee", "rocket"), "a cup of coffee"
    with served(Settings(root=tmp_path), lambda: loaded("nano")) as client:
        for name in names:
            content = (REPOSITORY / f"data/samples/{name}.jpg").read_bytes()
            client.post(f"{C}/items", files={"file": (f"{name}.jpg", content)}, data={"id": name}, timeout=120)
        hits = client.post(f"{C}/search", json={"text": text, "rerank": 3}, timeout=300).json()["hits"]
        shown = [client.get(f"{C}/thumbnails/{name}").content for name in names]
    scores = dict(zip(names, vlm.load("nano").match(shown, [text] * 3), strict=True))
    assert [hit["id"] for hit in hits] == sorted(names, key=lambda name: -scores[name])
    assert hits[0]["id"] == "coffee"
    for hit in hits:
        assert hit["match"] == pytest.approx(scores[hit["id"]], abs=1e-4)

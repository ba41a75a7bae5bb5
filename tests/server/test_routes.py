"""Each route, as a caller sees it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import CLIP, as_json, error, ids, picture, unit

from vlm.server.embedding.embedder import Colours


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def add(client: httpx.Client, c: str, colour: str, **metadata: object) -> str:
    files = {"file": (f"{colour}.png", picture(colour))}
    answer = client.post(f"{c}/items", files=files, data={"metadata": json.dumps(metadata), "id": colour})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"][0]["id"]


def test_health_and_readiness(client: httpx.Client) -> None:
    for path in ("/healthz", "/readyz"):
        assert client.get(path).json() == {"status": "ok"}


def test_a_collection_from_its_making_to_its_end(client: httpx.Client) -> None:
    about = {"name": "one", "count": 0, "model": "colours", "width": 64}
    made = client.post("/v1/collections", json={"name": "one"})
    assert (made.status_code, made.json()) == (201, about)
    assert error(client.post("/v1/collections", json={"name": "one"})) == (409, "exists")
    assert about in client.get("/v1/collections").json()["collections"]
    assert client.get("/v1/collections/one").json() == about
    assert client.delete("/v1/collections/one").json() == {"deleted": 0}
    assert error(client.get("/v1/collections/one")) == (404, "collection_not_found")
    assert error(client.post("/v1/collections/one/search", json={"text": "red"})) == (404, "collection_not_found")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "a" * 65, ".a", "é"])
def test_names_that_are_none(client: httpx.Client, name: str) -> None:
    assert error(client.post("/v1/collections", json={"name": name})) == (422, "invalid")


def test_a_first_item_makes_its_collection(client: httpx.Client) -> None:
    assert error(client.post("/v1/collections/..%20/items", json={"text": "red"})) == (422, "invalid")
    assert error(client.post("/v1/collections/New/items", json={"txt": "red"})) == (422, "invalid")
    assert error(client.get("/v1/collections/New")) == (404, "collection_not_found")
    item = client.post("/v1/collections/New/items", json={"text": "red"}).json()["items"][0]
    assert item["status"] == "added"
    for name in ("new", "New"):
        assert error(client.post("/v1/collections", json={"name": name})) == (409, "exists")
    hits = client.post("/v1/collections/New/search", json={"text": "red"}).json()["hits"]
    assert [hit["id"] for hit in hits] == [item["id"]]
    assert client.delete("/v1/collections/New").json() == {"deleted": 1}


def test_uploads_are_found_by_words_and_by_pictures(client: httpx.Client, c: str) -> None:
    for colour in ("red", "lime", "blue"):
        add(client, c, colour, shade=colour)
    assert client.get(c).json()["count"] == 3
    hits = client.post(f"{c}/search", json={"text": "blue", "top": 2}).json()["hits"]
    assert hits[0]["id"] == "blue"
    assert len(hits) == 2
    assert hits[0]["metadata"] == {"shade": "blue", "_kind": "image", "_name": "blue.png"}
    assert hits[0]["score"] > 0.99
    for text in (b64(picture("lime")), f"data:image/png;base64,{b64(picture('lime'))}"):
        assert ids(client.post(f"{c}/search", json={"image": text}))[0] == "lime"
    assert ids(client.post(f"{c}/search", json={"id": "red"})) == ["lime", "blue"]


def test_several_files_with_metadata_and_ids_each(client: httpx.Client, c: str) -> None:
    files = [("file", ("a.png", picture("red"))), ("file", ("b.jpg", picture("blue", kind="JPEG")))]
    data = {"metadata": json.dumps([{"n": 1}, {"n": 2}]), "id": ["x", "y/z ü"]}
    answer = client.post(f"{c}/items", files=files, data=data).json()
    assert [(item["id"], item["status"]) for item in answer["items"]] == [("x", "added"), ("y/z ü", "added")]
    assert client.get(f"{c}/items/y/z ü").json()["metadata"]["n"] == 2
    answer = client.post(f"{c}/items", files=files, data=data).json()
    assert [item["status"] for item in answer["items"]] == ["replaced", "replaced"]
    assert client.delete(f"{c}/items/y/z ü").json() == {"deleted": 1}
    assert error(client.delete(f"{c}/items/y/z ü")) == (404, "item_not_found")
    assert client.get(c).json()["count"] == 1


def test_one_bad_file_among_good_ones_is_refused_alone(client: httpx.Client, c: str) -> None:
    files = [("file", ("a.png", picture("red"))), ("file", ("b.png", b"no picture"))]
    items = client.post(f"{c}/items", files=files).json()["items"]
    assert [item["status"] for item in items] == ["added", "refused"]
    assert items[1]["error"]["code"] == "bad_input"
    assert client.get(c).json()["count"] == 1


def test_the_same_content_is_the_same_item(client: httpx.Client, c: str) -> None:
    first, second = (client.post(f"{c}/items", files={"file": ("a.png", picture())}).json()["items"][0] for _ in "ab")
    assert first["id"] == second["id"]
    assert (first["status"], second["status"]) == ("added", "replaced")


def test_items_as_json(client: httpx.Client, c: str, media: Path) -> None:
    (media / "sub").mkdir(exist_ok=True)
    (media / "sub" / "green.png").write_bytes(picture("green"))
    items = [
        {"id": "path", "path": "sub/green.png", "metadata": {"year": 2020}},
        {"id": "absolute", "path": str(media / "sub" / "green.png"), "metadata": {"items": 3}},
        {"id": "image", "image": b64(picture("red"))},
        {"id": "text", "text": "yellow"},
        {"id": "vector", "vector": [3.0 * x for x in unit(1, 1)]},
    ]
    answer = client.post(f"{c}/items", json={"items": items})
    assert [item["status"] for item in answer.json()["items"]] == ["added"] * 5
    assert client.post(f"{c}/items", json=items[1]).json()["items"][0]["status"] == "replaced"
    shown = client.get(f"{c}/items/path").json()["metadata"]
    assert shown == {"year": 2020, "_kind": "image", "_name": "sub/green.png", "_path": "sub/green.png"}
    assert ids(client.post(f"{c}/search", json={"text": "green", "top": 2})) == ["path", "absolute"]
    hit = client.post(f"{c}/search", json={"vector": unit(1, 1), "top": 1}).json()["hits"][0]
    assert hit["id"] == "vector"
    assert hit["score"] == pytest.approx(1, abs=1e-5)
    assert ids(client.post(f"{c}/search", json={"text": "yellow", "top": 1})) == ["text"]


def test_filters_thresholds_and_pages(client: httpx.Client, c: str) -> None:
    items = [{"id": f"{n}", "vector": unit(1, n / 10), "metadata": {"n": n, "even": n % 2 == 0}} for n in range(8)]
    client.post(f"{c}/items", json={"items": items})
    search = {"vector": unit(1), "top": 8}
    assert ids(client.post(f"{c}/search", json=search)) == [f"{n}" for n in range(8)]
    assert ids(client.post(f"{c}/search", json={**search, "filter": {"even": True}})) == ["0", "2", "4", "6"]
    assert ids(client.post(f"{c}/search", json={**search, "filter": {"n": {"gte": 3, "lt": 5}}})) == ["3", "4"]
    pages = [ids(client.post(f"{c}/search", json={**search, "top": 3, "offset": start})) for start in (0, 3, 6)]
    assert pages == [["0", "1", "2"], ["3", "4", "5"], ["6", "7"]]
    near = client.post(f"{c}/search", json={**search, "min_score": 0.95}).json()["hits"]
    assert [hit["id"] for hit in near] == ["0", "1", "2", "3"]
    assert all(hit["score"] >= 0.95 for hit in near)
    assert ids(client.post(f"{c}/search", json={"id": "3", "top": 2, "offset": 2})) == ["5", "1"]
    for bad in ({"n": {"near": 3}}, {"n": {}}, {"or": 1}):
        assert error(client.post(f"{c}/search", json={**search, "filter": bad})) == (422, "invalid")


def test_a_batch_of_queries_gives_what_single_ones_give(client: httpx.Client, c: str) -> None:
    for colour in ("red", "lime", "blue"):
        add(client, c, colour)
    queries = [{"text": "red"}, {"image": b64(picture("blue"))}, {"vector": unit(1, 2)}, {"id": "lime"}]
    results = client.post(f"{c}/search", json={"queries": queries, "top": 2}).json()["results"]
    assert results == [client.post(f"{c}/search", json={**query, "top": 2}).json() for query in queries]


def test_a_picture_and_words_make_one_query(client: httpx.Client, c: str) -> None:
    for colour in ("red", "lime", "blue"):
        add(client, c, colour)
    image, words = (
        Colours().embed_images([np.asarray(Image.new("RGB", (4, 4), "red"))]),
        Colours().embed_texts(["blue"]),
    )
    for weight, best in ((None, {"red", "blue"}), (0.9, {"blue"}), (0.0, {"red"})):
        query = {"image": b64(picture("red")), "text": "blue", **({} if weight is None else {"weight": weight})}
        hits = client.post(f"{c}/search", json={**query, "top": len(best)}).json()["hits"]
        assert {hit["id"] for hit in hits} == best
        share = 0.5 if weight is None else weight
        composed = (1 - share) * image[0] + share * words[0]
        of_best = Colours().embed_images([np.asarray(Image.new("RGB", (4, 4), hits[0]["id"]))])[0]
        assert hits[0]["score"] == pytest.approx(composed @ of_best / np.linalg.norm(composed), abs=1e-5)


def test_clips_are_found_and_open_at_the_moment(client: httpx.Client, c: str, media: Path) -> None:
    shutil.copy(CLIP, media / "clip.mp4")
    with CLIP.open("rb") as file:
        answer = client.post(f"{c}/items", files={"file": ("night.mp4", file)}, data={"id": "up"})
    assert answer.status_code == 200, answer.text
    assert client.post(f"{c}/items", json={"id": "by-path", "path": "clip.mp4"}).status_code == 200
    search = {"video": b64(CLIP.read_bytes()), "top": 2}
    hits = client.post(f"{c}/search", json=search).json()["hits"]
    assert {hit["id"] for hit in hits} == {"up", "by-path"}
    for hit in hits:
        assert hit["score"] == pytest.approx(1, abs=1e-4)
        assert hit["metadata"]["_kind"] == "video"
        assert 0 <= hit["moment"]["start"] < hit["moment"]["end"] <= hit["metadata"]["_duration"]
    for id in ("up", "by-path"):
        whole = client.get(f"{c}/videos/{id}")
        assert whole.content == CLIP.read_bytes()
        assert whole.headers["content-type"] == "video/mp4"
        part = client.get(f"{c}/videos/{id}", headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, CLIP.read_bytes()[5:10])
        assert Image.open(io.BytesIO(client.get(f"{c}/thumbnails/{id}").content)).format == "JPEG"


def test_thumbnails_are_small_jpegs(client: httpx.Client, c: str) -> None:
    client.post(f"{c}/items", files={"file": ("a.png", picture("blue", (900, 600)))}, data={"id": "a"})
    shown = client.get(f"{c}/thumbnails/a")
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(shown.content)).size == (320, 213)
    client.post(f"{c}/items", json={"id": "t", "text": "red"})
    assert error(client.get(f"{c}/thumbnails/t")) == (404, "media_not_found")
    assert error(client.get(f"{c}/videos/a")) == (404, "media_not_found")
    assert error(client.get(f"{c}/thumbnails/none")) == (404, "item_not_found")


def test_embeddings_as_openai_has_them(client: httpx.Client) -> None:
    image = f"data:image/png;base64,{b64(picture('red'))}"
    inputs = ["red", {"image": image}, {"type": "image_url", "image_url": {"url": image}}, {"text": "red"}]
    answer = client.post("/v1/embeddings", json={"model": "colours", "input": inputs}).json()
    assert (answer["object"], answer["model"]) == ("list", "colours")
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    rows = np.array([item["embedding"] for item in answer["data"]], np.float32)
    assert rows.shape == (4, 64)
    np.testing.assert_array_equal(rows[0], Colours().embed_texts(["red"])[0])
    np.testing.assert_array_equal(rows[1], rows[2])
    np.testing.assert_array_equal(rows[0], rows[3])

    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    one = client.post("/v1/embeddings", json={"input": "red", "encoding_format": "base64"}).json()
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(one["data"][0]["embedding"]), "<f4"), rows[0])
    cut = np.array(client.post("/v1/embeddings", json={"input": "red", "dimensions": 8}).json()["data"][0]["embedding"])
    np.testing.assert_allclose(cut, rows[0, :8] / np.linalg.norm(rows[0, :8]), rtol=1e-6)
    assert error(client.post("/v1/embeddings", json={"input": "red", "model": "other"})) == (404, "model_not_found")
    for bad in ({"input": []}, {"input": ""}, {"input": [1, 2]}, {"input": "a", "dimensions": 65}, {}):
        assert error(client.post("/v1/embeddings", json=bad)) == (422, "invalid")


def test_metrics_are_prometheus(client: httpx.Client, c: str) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    add(client, c, "red")
    client.get("/nowhere/at/all")
    found = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    routes = {sample.labels["route"] for sample in found["vlm_requests"].samples if "route" in sample.labels}
    assert {"/v1/collections/{name}/items", "other"} <= routes
    assert [s.value for s in found["vlm_items"].samples if s.labels == {"collection": "c"}] == [1]
    assert found["vlm_commit_seconds"].samples
    for name in ("gone", "never-written"):
        client.post("/v1/collections", json={"name": name})
        if name == "gone":
            add(client, f"/v1/collections/{name}", "red")
        client.get("/metrics")
        client.delete(f"/v1/collections/{name}")
        assert name not in client.get("/metrics").text


def test_every_error_has_the_same_form(client: httpx.Client, c: str) -> None:
    assert error(client.get("/nowhere")) == (404, "not_found")
    put = client.put("/v1/collections")
    assert error(put) == (405, "method_not_allowed")
    assert put.headers["allow"]
    assert error(client.post(f"{c}/search", json={"text": "a", "vector": unit(1)})) == (422, "invalid")
    assert error(client.post(f"{c}/search", json={"text": "a", "weight": 0.5})) == (422, "invalid")
    assert error(client.post(f"{c}/search", json={"text": "a", "top": "5"})) == (422, "invalid")
    assert error(client.post(f"{c}/search", json={})) == (422, "invalid")
    assert error(client.post(f"{c}/search", json={"text": "a", "colour": 1})) == (422, "invalid")
    assert error(client.post(f"{c}/search", content="{", headers={"Content-Type": "application/json"}))[0] == 422
    assert error(client.post(f"{c}/items", content="x", headers={"Content-Type": "text/csv"})) == (415, "unsupported")
    assert error(client.post(f"{c}/items", json={"text": " "})) == (422, "invalid")
    assert error(client.post(f"{c}/items", json={"text": "a", "metadata": {"_kind": "x"}})) == (422, "invalid")
    assert error(client.post(f"{c}/items", **as_json({"text": "a", "metadata": {"x": float("nan")}}))) == (
        422, "invalid",
    )  # fmt: skip
    assert error(client.post(f"{c}/items", data={"id": "a"}, files={"x": ("a", b"")})) == (400, "bad_input")


def test_the_document_has_each_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/v1/collections/{name}/items", "/v1/collections/{name}/search", "/v1/embeddings"} <= set(document["paths"])
    body = document["paths"]["/v1/collections/{name}/items"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "Item" in document["components"]["schemas"]

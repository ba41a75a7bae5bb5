"""`vlm serve all`: conversations and collections of one model behind one port, with one set of keys and limits."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny
import yaml
from chatting import CHAT, EMBED, HELLO, data_url, showing, vector
from serving import REPOSITORY, ServingProcess, as_shown, error, ids, picture, running

import vlm
from vlm.cli import main
from vlm.engine.settings import EngineSettings
from vlm.facade import Model
from vlm.models.identity import space_of
from vlm.server.chat.loaded import load
from vlm.server.chat.settings import ChatLimits
from vlm.server.combined import CombinedSettings, create_app
from vlm.server.http.auth import Keys

C = "/v1/collections/c"
READ, WRITE = "r" * 20, "w" * 20
COLOURS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, tuple[str, int]]:
    card = tiny.write_card(tmp_path_factory.mktemp("model") / "tiny")
    return vlm.load(card), space_of(str(card))


@pytest.fixture(scope="module")
def client(model: tuple[Model, tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """With the real engine, and a key that may write."""
    limits = ChatLimits(inputs=100, batch=8)
    folder = tmp_path_factory.mktemp("root")
    settings = CombinedSettings(root=folder / "root", sessions=folder / "sessions", engine="flat", limits=limits)
    keys = Keys({READ: "read", WRITE: "write"})

    def app(failed: Any) -> Any:
        return create_app(settings, lambda: load(model[0], EngineSettings(), space=model[1]), keys, failed)

    with running(app, settings.limits) as found:
        found.headers["Authorization"] = f"Bearer {WRITE}"
        yield found


def test_one_server_keeps_finds_embeds_and_answers(
    client: httpx.Client, model: tuple[Model, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one model: whatever loads another fails."""

    def again(*given: Any, **options: Any) -> Model:
        raise AssertionError("loaded again")

    monkeypatch.setattr("vlm.api.load", again)
    for colour in COLOURS:
        sent = client.post(f"{C}/items", files={"file": (f"{colour}.png", picture(colour))}, data={"id": colour})
        assert sent.json()["items"][0]["status"] == "added"
    rows = model[0].embed_images([picture(colour) for colour in COLOURS])
    for colour, row in zip(COLOURS, rows, strict=True):
        query = base64.b64encode(picture(colour)).decode()
        assert ids(client.post(f"{C}/search", json={"image": query, "top": 1})) == [colour]
        kept = client.get(f"{C}/items/{colour}", params={"vector": True}).json()["vector"]
        np.testing.assert_allclose(kept, row, atol=1e-6)
    answer = client.post(EMBED, json={"input": "a red square", "model": "tiny"}).json()
    np.testing.assert_allclose(answer["data"][0]["embedding"], model[0].embed_texts(["a red square"])[0], atol=1e-7)
    said = client.post(CHAT, json={"messages": showing(data_url(picture("red"))), "max_tokens": 8})
    shown = [{"type": "image", "image": picture("red")}, {"type": "text", "text": "What is it?"}]
    expected = model[0].chat([{"role": "user", "content": shown}], max_tokens=8)
    assert said.json()["choices"][0]["message"]["content"].strip() == expected
    caption = client.post("/caption", files={"file": ("a.png", picture("blue"))})
    assert caption.json()["caption"] == model[0].caption([picture("blue")])[0]
    hits = client.post(f"{C}/search", json={"text": "a red square", "rerank": 3}).json()["hits"]
    assert sorted(hit["id"] for hit in hits) == sorted(COLOURS)
    assert all(hit["match"] is not None for hit in hits)


def test_conversations_are_kept(client: httpx.Client) -> None:
    session = "/v1/sessions/red"
    told = client.post(session, json={"messages": showing(data_url(picture("red")))}).json()
    assert (told["media"], told["image_tokens"]) == (1, 4)
    assert client.post(f"{session}/restore").json() == told
    reads = {"Authorization": f"Bearer {READ}"}
    assert error(client.get(session, headers=reads)) == (404, "session_not_found")
    assert client.delete(session).json() == {"name": "red"}


def test_what_both_have_is_there_once_and_says_both(client: httpx.Client) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["width"]) == ("tiny", 16)
    limits = client.get("/v1/limits").json()
    assert (limits["context"], limits["batch"], limits["inputs"], limits["urls"]) == (256, 8, 100, False)
    assert {"top", "metadata_bytes", "media", "frames", "choices"} <= set(limits)
    client.post(CHAT, json={"messages": HELLO, "max_tokens": 2})
    client.post(EMBED, json={"input": "red"})
    figures = client.get("/metrics").text
    for name in ("vlm_replies_running", "vlm_embedding_batch_count", "vlm_items", "vlm_decoder_deaths"):
        assert name in figures
    assert figures.count("# TYPE vlm_requests_total ") == 1


def test_the_document_lists_both_and_each_schema(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path in (
        CHAT,
        EMBED,
        "/caption",
        "/v1/decisions",
        "/v1/sessions/{name}",
        "/v1/collections/{name}/search",
        "/v1/limits",
        "/readyz",
    ):
        assert path in document["paths"]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    assert not [name for name in document["components"]["schemas"] if "__" in name], "two of one name"


def test_every_documented_route_is_counted_by_itself(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            client.request(method, re.sub(r"{\w+}", "there-is-none", path), headers={"Authorization": "Bearer none"})
    client.get("/nowhere/at/all")
    client.get("/v1/collections/..%2f")
    counted = set(re.findall(r'vlm_requests_total{method="(\w+)",route="([^"]+)"', client.get("/metrics").text))
    expected = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert expected <= counted
    assert {route for _, route in counted} - {path for _, path in expected} <= {"/openapi.json", "other"}


def test_a_key_that_reads_asks_and_searches_and_changes_nothing(client: httpx.Client) -> None:
    reads = {"Authorization": f"Bearer {READ}"}
    assert client.post(CHAT, json={"messages": HELLO, "max_tokens": 2}, headers=reads).status_code == 200
    assert client.post(EMBED, json={"input": "red"}, headers=reads).status_code == 200
    assert error(client.post(f"{C}/items", json={"text": "red"}, headers=reads)) == (403, "forbidden")
    for path in (CHAT, EMBED, f"{C}/search"):
        assert error(client.post(path, json={}, headers={"Authorization": "Bearer none"})) == (401, "unauthorized")


@pytest.mark.process
def test_the_requests_shown_are_answered(model: tuple[Model, tuple[str, int]], tmp_path: Path) -> None:
    settings = CombinedSettings(root=tmp_path, engine="flat", media=(REPOSITORY / "data" / "samples",), max_tokens=4)

    def app(failed: Any) -> Any:
        return create_app(settings, lambda: load(model[0], EngineSettings(), space=model[1]), None, failed)

    with running(app, settings.limits) as client:
        assert as_shown(REPOSITORY / "docs" / "one-server.md", client) > 6


def test_a_model_that_cannot_do_both_is_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    card = tiny.write_card(tmp_path / "tiny")
    fields = yaml.safe_load(card.read_text())
    fields["model"] |= {"alignment": None, "text_width": None}
    card.write_text(yaml.safe_dump(fields))
    words = ["serve", "all", "--root", str(tmp_path / "root"), "--port", "0", "--no-page", "--offline"]
    assert main([*words, "--model", str(card)]) == 2
    assert "no space that pictures and texts share" in capfd.readouterr().err.splitlines()[-1]
    for options in (["--host", "0.0.0.0"], ["--engine", "flatt"], ["--model", "nanoo"], ["--open", "a=nowhere"]):
        assert main([*words, *options]) == 2
        assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.process
def test_what_was_accepted_is_finished_at_the_end(tmp_path: Path) -> None:
    """A reply that is being written, and uploads that wait for their turn; the folder is free then."""
    card = tiny.write_card(tmp_path / "tiny")
    words = [
        "all",
        "--model",
        str(card),
        "--root",
        str(tmp_path / "root"),
        "--no-page",
        "--engine",
        "flat",
        "--offline",
    ]
    server = ServingProcess(*words)
    assert server.client.post(f"{C}/items", json={"id": "first", "text": "a red square"}).status_code == 200
    body = {"messages": HELLO, "max_tokens": 200, "stream": True, "logit_bias": {"70": 100}}
    files = [("file", (f"{n}.png", picture((n, 0, 0)), "image/png")) for n in range(40)]
    with ThreadPoolExecutor(1) as threads, server.client.stream("POST", CHAT, json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        upload = threads.submit(httpx.post, server.client.base_url.join(f"{C}/items"), files=files, timeout=60)
        while not re.search(r'vlm_embedding_batch_count{kind="image".* [1-9]', server.client.get("/metrics").text):
            assert not upload.done() or upload.result().status_code == 200
        os.kill(server.process.pid, signal.SIGTERM)
        rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
        assert [item["status"] for item in upload.result().json()["items"]] == ["added"] * 40
    assert server.process.wait(60) == 0
    again = ServingProcess(*words)
    assert again.client.get(C).json()["count"] == 41
    assert again.end() == 0


@pytest.mark.process
@pytest.mark.weights
def test_nano_does_all_of_it(tmp_path: Path) -> None:
    samples = REPOSITORY / "data" / "samples"
    server = ServingProcess(
        "all", "--model", "nano", "--root", str(tmp_path), "--media", str(samples), "--engine", "flat", "--no-page"
    )
    model, names = vlm.load("nano"), ("cat", "coffee", "koala")
    items = [{"id": name, "path": f"{name}.jpg"} for name in names]
    assert server.client.post(f"{C}/items", json={"items": items}).status_code == 200
    assert ids(server.client.post(f"{C}/search", json={"text": "a cup of coffee", "top": 1})) == ["coffee"]
    messages = showing("cat.jpg", "What animal is it?")
    said = server.client.post(CHAT, json={"messages": messages, "max_tokens": 32}).json()["choices"][0]["message"]
    own = [{"type": "image", "image": samples / "cat.jpg"}, {"type": "text", "text": "What animal is it?"}]
    assert said["content"].strip() == model.chat([{"role": "user", "content": own}], max_tokens=32)
    for name in names:
        photo = base64.b64encode((samples / f"{name}.jpg").read_bytes()).decode()
        row = vector(server.client, {"image": photo})
        assert np.array_equal(row, model.embed_images([samples / f"{name}.jpg"])[0])
    assert np.array_equal(vector(server.client, "a cat"), model.embed_texts(["a cat"])[0])
    assert server.end() == 0

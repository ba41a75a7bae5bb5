"""`/v1/embeddings` of a chat server: the model that writes also gives vectors, and neither work holds up the other."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny
import yaml
from chatting import (
    CHAT,
    EMBED,
    HELLO,
    Script,
    ask,
    chatting,
    data_url,
    embedder,
    loaded,
    openai_client,
    showing,
    vector,
)
from PIL import Image
from serving import error, picture, running, served, wait

import vlm
from vlm.engine.settings import EngineSettings
from vlm.facade import Model
from vlm.media.process.pictures import Picture
from vlm.models.identity import space_of
from vlm.server.chat.app import create_app
from vlm.server.chat.loaded import Loaded, load
from vlm.server.chat.settings import ChatLimits, ChatSettings
from vlm.server.embedding.embedder import ModelEmbedder
from vlm.server.http.auth import Keys
from vlm.server.http.settings import Settings

TEXTS = ["a red square on the wall", "is there a dog?"]
KEY = "k" * 20


@pytest.fixture(scope="module")
def client(tiny_model: Model) -> Iterator[httpx.Client]:
    with chatting(tiny_model, Script(), ChatSettings(limits=ChatLimits(inputs=5))) as found:
        yield found


def photo(seed: int = 0) -> bytes:
    """Of many colours, and of no shape of the tower's."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 130, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_vectors_are_those_of_the_model_and_of_the_retrieval_server(
    client: httpx.Client, tiny_model: Model, tmp_path: Path
) -> None:
    with served(Settings(root=tmp_path, engine="flat"), lambda: embedder(tiny_model)) as other:
        for text in TEXTS:
            row = vector(client, text)
            assert np.array_equal(row, tiny_model.embed_texts([text])[0])
            assert np.array_equal(row, vector(other, text))
        for content in (photo(), picture("red")):
            row = vector(client, {"type": "image_url", "image_url": {"url": data_url(content)}})
            assert np.array_equal(row, tiny_model.embed_images([content])[0])
            assert np.array_equal(row, vector(other, {"image": base64.b64encode(content).decode()}))


def test_openai_s_client_asks_the_server_for_both(client: httpx.Client, tiny_model: Model) -> None:
    pytest.importorskip("openai", reason="openai is not installed (pip: vlm[dev])")
    with openai_client(client) as openai:
        assert openai.chat.completions.create(model="tiny", messages=HELLO).choices[0].message.content
        answer = openai.embeddings.create(model="tiny", input=TEXTS)
        rows = np.array([one.embedding for one in answer.data], np.float32)
        np.testing.assert_allclose(rows, tiny_model.embed_texts(TEXTS), atol=1e-6)
        assert answer.usage.prompt_tokens == sum(tiny_model.count_tokens(TEXTS))
        assert len(openai.embeddings.create(model="tiny", input="a", dimensions=4).data[0].embedding) == 4


def test_what_is_refused_and_told(client: httpx.Client) -> None:
    assert error(client.post(EMBED, json={"input": "a", "model": "large"})) == (404, "model_not_found")
    assert error(client.post(EMBED, json={"input": ["a"] * 6})) == (413, "too_large")
    assert error(client.post(EMBED, json={"input": "a", "dimensions": 17})) == (422, "invalid")
    assert error(client.post(EMBED, json={"input": {"image": "eA=="}})) == (400, "bad_input")
    assert client.get("/v1/limits").json()["inputs"] == 5
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["width"]) == ("tiny", 16)
    assert client.get("/v1/models/tiny").json() == model
    assert 'vlm_embedding_batch_count{kind="text",model="tiny"}' in client.get("/metrics").text


def test_a_key_that_reads_may_embed(tiny_model: Model) -> None:
    with chatting(tiny_model, Script(), keys=Keys({KEY: "read"})) as client:
        assert error(client.post(EMBED, json={"input": "a"})) == (401, "unauthorized")
        client.headers["Authorization"] = f"Bearer {KEY}"
        assert len(vector(client, "a")) == 16


def test_a_model_without_a_space_says_so_in_one_line(tmp_path: Path) -> None:
    card = tiny.write_card(tmp_path / "tiny")
    fields = yaml.safe_load(card.read_text())
    card.write_text(yaml.safe_dump({**fields, "model": {**fields["model"], "alignment": None, "text_width": None}}))
    model = vlm.load(card)
    assert "embeds" not in model.can
    with chatting(model, Script()) as client:
        answer = client.post(EMBED, json={"input": "a"})
        assert error(answer) == (400, "bad_input")
        assert "no space that pictures and texts share" in answer.json()["error"]["message"]
        assert "width" not in client.get("/v1/models").json()["data"][0]
        assert ask(client).status_code == 200


class Held(ModelEmbedder):
    """Waits for `go` before it embeds."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, ("tiny", 16))
        self.go, self.begun = threading.Event(), threading.Event()

    def embed_images(self, pictures: Sequence[Picture]) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(20)
        return super().embed_images(pictures)


def test_neither_replies_nor_vectors_wait_for_the_other(tiny_model: Model) -> None:
    engine, held, settings = Script(), Held(tiny_model), ChatSettings()
    both = replace(loaded(tiny_model, engine), embedders=(held,))
    with (
        running(lambda failed: create_app(settings, lambda: both, None, failed), settings.limits) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        embedding = threads.submit(client.post, EMBED, json={"input": {"image": data_url(photo())}})
        wait(held.begun.is_set)
        assert ask(client).status_code == 200
        assert not embedding.done()
        engine.go.clear()
        reply = threads.submit(ask, client)
        wait(lambda: len(engine.asked) == 2)
        held.go.set()
        assert embedding.result().status_code == 200
        assert len(vector(client, "a")) == 16
        assert not reply.done()
        engine.go.set()
        assert reply.result().status_code == 200


def test_the_model_is_loaded_once_and_does_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real engine; whatever loaded another model would fail."""
    card = tiny.write_card(tmp_path / "tiny")
    model = vlm.load(card)
    space, settings = space_of(str(card)), ChatSettings()
    body = {"messages": showing(data_url(photo())), "max_tokens": 8}

    def again(*given: Any, **options: Any) -> Model:
        raise AssertionError("loaded again")

    monkeypatch.setattr("vlm.api.load", again)

    def made() -> Loaded:
        return load(model, EngineSettings(), space=space)

    with (
        running(lambda failed: create_app(settings, made, None, failed), settings.limits) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        alone = client.post(CHAT, json=body).json()["choices"]
        rows = {text: vector(client, text) for text in TEXTS}
        pictures = {seed: vector(client, {"image": data_url(photo(seed))}) for seed in range(3)}
        replies = [threads.submit(client.post, CHAT, json=body) for _ in range(4)]
        for _ in range(3):
            assert all(np.array_equal(vector(client, text), row) for text, row in rows.items())
            assert all(
                np.array_equal(vector(client, {"image": data_url(photo(seed))}), row) for seed, row in pictures.items()
            )
        assert all(reply.result().json()["choices"] == alone for reply in replies)
        assert all(np.array_equal(row, model.embed_texts([text])[0]) for text, row in rows.items())

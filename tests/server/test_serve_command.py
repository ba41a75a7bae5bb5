"""`vlm serve retrieval`: what it refuses to start on, and what it serves of a real model."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from serving import VLM, ServerProcess, error, served

from vlm.cli import main
from vlm.errors import BadInput
from vlm.server.embedding.embedder import Colours
from vlm.server.http.settings import Settings
from vlm.server.retrieval.run import serve

C = "/v1/collections/c"


@pytest.mark.process
def test_a_folder_in_use_is_refused_and_a_collection_of_another_model_set_aside(tmp_path: Path) -> None:
    class Other(Colours):
        space = "other-1"

    settings = Settings(root=tmp_path)
    with served(settings) as client:
        client.post("/v1/collections", json={"name": "c"})
    with served(settings, Other) as client:  # it is set aside, as it is
        told = client.get("/v1/collections/c")
        assert error(told) == (409, "set_aside")
        assert "of model other-1, got one of colours-1" in told.json()["error"]["message"]
    server = ServerProcess(tmp_path)
    assert server.client.get(C).status_code == 200
    with pytest.raises(BadInput, match="no other server"):
        serve(settings, [Colours], host="127.0.0.1", port=0, keys=None)
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
        (["--cors", "*"], 2),
        (["--cors", "app.example"], 2),
        (["--cors", "https://app.example/page"], 2),
    ):
        model = [] if "--model" in options else ["--model", "colours"]
        words = ["serve", "retrieval", "--root", tmp_path / "r", "--port", "0", "--no-page", *model, *options]
        assert main([str(word) for word in words]) == code
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.process
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

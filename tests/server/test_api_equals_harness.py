"""The same benchmark by the harness in memory and by a server's own collections: the same results."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dual
import httpx
import numpy as np
import pytest
import yaml
from serving import error, served

from vlm.api import Model
from vlm.api import load as load_model
from vlm.cli.session import space_of
from vlm.config import read_yaml
from vlm.datasets.examples import Example
from vlm.datasets.examples import load_card as load_dataset
from vlm.errors import BadInput, VlmError
from vlm.evaluation import served as module
from vlm.evaluation.results import Sample, TaskResult, read_samples
from vlm.evaluation.run import Options, evaluate
from vlm.evaluation.served import ServedModel
from vlm.media.open import Media
from vlm.server.embedding.embedder import Colours, ModelEmbedder, loaded
from vlm.server.http.auth import Keys
from vlm.server.http.settings import Settings

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


class LocalColours(Model):
    """What the server's stand-in knows, in this process."""

    def __init__(self) -> None:
        super().__init__("colours", "a stand-in")
        self.colours = Colours()

    def weights_hash(self) -> str:
        return "none"

    def embed_images(self, inputs: Sequence[Media], **options: object) -> np.ndarray:  # type: ignore[override]
        rows = [self.colours.embed_images([np.asarray(f) for f in media.frames]).mean(axis=0) for media in inputs]
        return np.stack([row / np.linalg.norm(row) for row in rows])

    def embed_texts(self, texts: Sequence[str], **options: object) -> np.ndarray:  # type: ignore[override]
        return self.colours.embed_texts(texts)

    def text_notes(self, texts: Sequence[str]) -> list[list[str]]:
        return [[] for _ in texts]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs and clips with their captions; one photograph is there twice, so that there are ties."""
    home = tmp_path_factory.mktemp("data")
    rows = []
    for number, sample in enumerate(read_yaml(SAMPLES / "samples.yaml")):
        kind = "video" if sample["file"].endswith(".mp4") else "image"
        rows.append({kind: f"{number}{Path(sample['file']).suffix}", "captions": [sample["caption"], f"red {number}"]})
        shutil.copy(SAMPLES / sample["file"], home / rows[-1][kind])
    shutil.copy(home / rows[0]["image"], home / "again.jpg")
    rows.append({"image": "again.jpg", "captions": ["the same once more"]})
    lines = (json.dumps({**row, "split": "test"}) + "\n" for row in rows)
    (home / "rows.jsonl").write_text("".join(lines))
    about = {"about": "samples", "licence": "see samples", "source": "samples"}
    data = {"name": "own", "folder": ".", "annotations": "rows.jsonl", "splits": {"test": len(rows)}, **about}
    (home / "own.yaml").write_text(yaml.safe_dump(data))
    card = {"name": "own-retrieval", "about": "x", "dataset": "own.yaml", "split": "test", "kind": "retrieval"}
    (home / "benchmark.yaml").write_text(yaml.safe_dump(card))
    return home


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with served(Settings(root=tmp_path_factory.mktemp("root"))) as client:
        yield client


@pytest.fixture(scope="module")
def nano() -> Model:
    return load_model("nano")


@pytest.fixture(scope="module")
def nano_served(nano: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    class Loaded(ModelEmbedder):
        def __init__(self) -> None:
            self._model, self.name, self.sampling = nano, nano.name, nano.sampling()
            self.space, self.width = space_of("nano")

    with served(Settings(root=tmp_path_factory.mktemp("root")), Loaded) as client:
        yield client


def results(model: Model, card: str, to: Path, limit: int | None = None) -> tuple[TaskResult, list[Sample]]:
    data = str(Path(card).parent) if Path(card).is_file() else None
    [result] = evaluate(model, [card], Options(data, limit=limit, output=to))
    return result, list(read_samples(to / result.task))


def test_the_report_of_a_server_is_that_of_the_harness(
    colours: httpx.Client, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOP", 7)  # of 25 and 49 candidates: several parts
    monkeypatch.setattr(module, "BATCH", 5)
    card = str(benchmark / "benchmark.yaml")
    mine, my_samples = results(LocalColours(), card, tmp_path / "a")
    theirs, their_samples = results(ServedModel("here", colours), card, tmp_path / "b")
    assert theirs.figures == mine.figures
    assert their_samples == my_samples
    assert (theirs.model, theirs.settings, theirs.notes) == (mine.model, mine.settings, mine.notes)
    assert any((sample.scores["rank"] or 0) % 1 for sample in my_samples), "there are ties"
    assert colours.get("/v1/collections").json() == {"collections": []}, "nothing is left behind"


def test_a_server_is_named_by_its_address(
    colours: httpx.Client, benchmark: Path, capsys: pytest.CaptureFixture
) -> None:
    from vlm.cli import main

    command = ["eval", "--json", "--data", str(benchmark), "--tasks", str(benchmark / "benchmark.yaml"), "--model"]
    assert main([*command, str(colours.base_url)]) == 0
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert (result["model"], len(result["weights"])) == ("colours", 64)
    assert main([*command, "http://127.0.0.1:1"]) == 2
    assert "http://127.0.0.1:1: expected a server that answers, got:" in capsys.readouterr().err


def test_what_answers_but_is_no_server_of_the_api(benchmark: Path) -> None:
    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>")

    with (
        httpx.Client(base_url="http://x", transport=httpx.MockTransport(page)) as client,
        pytest.raises(BadInput, match="here: expected the retrieval API, got 200 without it"),
    ):
        ServedModel("here", client)


def test_a_busy_server_is_asked_again_and_lost_scores_are_told(colours: httpx.Client) -> None:
    busy = iter([True, False] * 100)

    def between(request: httpx.Request) -> httpx.Response:
        if next(busy):
            return httpx.Response(429, headers={"Retry-After": "0"}, json={"error": {"code": "busy", "message": "x"}})
        headers = {"Content-Type": "application/json"}
        answer = colours.request(request.method, request.url.path, content=request.content, headers=headers)
        body = answer.json()
        for result in body.get("results", []):
            result["hits"].pop()
        return httpx.Response(answer.status_code, json=body)

    with httpx.Client(base_url="http://x", transport=httpx.MockTransport(between)) as client:
        model = ServedModel("here", client)
        rows = model.embed_texts(["red", "blue"])
        with pytest.raises(VlmError, match="here: 2 of 4 scores are missing"):
            list(model.similarities(rows, rows))
    assert colours.get("/v1/collections").json() == {"collections": []}


def test_a_key_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys({"k" * 20: "write"})
    with served(Settings(root=tmp_path / "root"), keys=keys) as client:
        assert error(client.get("/v1/collections")) == (401, "unauthorized")
        url = str(client.base_url)
        monkeypatch.delenv(module.KEY, raising=False)
        with pytest.raises(BadInput, match=f"{url}.*POST /v1/embeddings: "):
            ServedModel(url)
        monkeypatch.setenv(module.KEY, "k" * 20)
        assert ServedModel(url).name == "colours"


def test_a_server_writes_nothing(colours: httpx.Client, benchmark: Path) -> None:
    model = ServedModel("here", colours)
    asks: list[Callable[[], object]] = [
        lambda: model.caption([]), lambda: model.answer([], []), lambda: model.match([], []),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(BadInput, match=r"at here: it cannot .*; expected one that writes"):
            ask()
    with pytest.raises(BadInput, match="expected benchmarks of kind retrieval or moments"):
        print(model.similarity_scale)
    with pytest.raises(BadInput, match="text 1 is empty"):
        model.embed_texts([" "])


def uploaded(client: httpx.Client, examples: Sequence[Example]) -> str:
    """A collection of the examples' files, sent as they are."""
    client.post("/v1/collections", json={"name": "files"})
    for example in examples:
        file = example.files[0]
        answer = client.post(
            "/v1/collections/files/items", files={"file": (file.name, file.read_bytes())}, data={"id": example.id}
        )
        assert answer.status_code == 200, answer.text
    return "/v1/collections/files/search"


def b64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def same_answers(client: httpx.Client, model: Model, examples: Sequence[Example], within: float) -> None:
    """Texts and pictures as such, embedded by the server in whatever batches, find what the harness's vectors find."""
    captions = [example.captions[0] for example in examples]
    place = uploaded(client, examples)
    try:
        media_ND = np.stack([model.embed_images([example.files[0]])[0] for example in examples])
        texts_ND = np.stack([model.embed_texts([caption])[0] for caption in captions])
        shown = [{"video" if e.video else "image": b64(e.files[0])} for e in examples]
        for queries_ND, queries in ((texts_ND, [{"text": caption} for caption in captions]), (media_ND, shown)):
            answer = client.post(place, json={"top": len(examples), "queries": queries})
            for query_D, result in zip(queries_ND, answer.json()["results"], strict=True):
                wanted = {e.id: float(row @ query_D) for e, row in zip(examples, media_ND, strict=True)}
                assert {hit["id"]: hit["score"] for hit in result["hits"]} == pytest.approx(wanted, abs=within)
                found = [wanted[hit["id"]] for hit in result["hits"]]
                assert all(a >= b - 2 * within for a, b in itertools.pairwise(found)), "the same order"
    finally:
        client.delete(place.rpartition("/")[0])


def test_texts_of_a_collection_of_files(colours: httpx.Client, benchmark: Path) -> None:
    class Opened(LocalColours):
        def embed_images(self, inputs: Sequence[Path], **options: object) -> np.ndarray:  # type: ignore[override]
            return super().embed_images(self._open(inputs, None))

    examples = load_dataset(str(benchmark / "own.yaml")).read(benchmark, "test")
    same_answers(colours, Opened(), examples, 1e-6)


def test_a_dual_encoder_by_both(benchmark: Path, tmp_path: Path) -> None:
    """One as its authors publish it, of random weights; what it knows no word of has one vector, so there are ties."""
    dual.save_dual(tmp_path / "clip")
    folder, card = str(tmp_path / "clip"), str(benchmark / "benchmark.yaml")
    settings = Settings(root=tmp_path / "root", engine="flat")
    with served(settings, lambda: loaded(folder, offline=True)) as client:
        mine, my_samples = results(load_model(folder), card, tmp_path / "a")
        theirs, their_samples = results(ServedModel("here", client), card, tmp_path / "b")
    assert theirs.model == mine.model == "clip"
    assert [s.scores for s in their_samples] == [s.scores for s in my_samples]
    assert theirs.figures == mine.figures


@pytest.mark.weights
def test_the_trained_model_by_both(nano: Model, nano_served: httpx.Client, benchmark: Path, tmp_path: Path) -> None:
    card = str(benchmark / "benchmark.yaml")
    mine, my_samples = results(nano, card, tmp_path / "a", limit=12)
    theirs, their_samples = results(ServedModel("here", nano_served), card, tmp_path / "b", limit=12)
    assert theirs.model == mine.model
    assert [s.scores["rank"] for s in their_samples] == [s.scores["rank"] for s in my_samples]
    assert theirs.figures == mine.figures
    examples = load_dataset(str(benchmark / "own.yaml")).read(benchmark, "test")
    same_answers(nano_served, nano, [*examples[:8], *(e for e in examples if e.video)], 1e-5)


@pytest.mark.weights
def test_real_photographs_by_both(nano: Model, nano_served: httpx.Client, tmp_path: Path) -> None:
    folder = os.environ.get("VLM_DATA")
    if not folder or not (Path(folder) / "flickr8k").is_dir():
        pytest.skip("no flickr8k in $VLM_DATA")
    mine, my_samples = results(nano, "flickr8k-retrieval", tmp_path / "a", limit=12)
    theirs, their_samples = results(ServedModel("here", nano_served), "flickr8k-retrieval", tmp_path / "b", limit=12)
    assert [s.scores["rank"] for s in their_samples] == [s.scores["rank"] for s in my_samples]
    assert theirs.figures == mine.figures
    examples = load_dataset("flickr8k").read(Path(folder), "test", 20)
    same_answers(nano_served, nano, examples, 1e-5)

"""The same model asked directly and behind a chat endpoint: the same answers and figures."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
import torch
import yaml
from chat_server import ChatServer

from vlm.api import load
from vlm.errors import BadInput
from vlm.evaluation.results import TaskResult, read_samples
from vlm.evaluation.run import Options, evaluate
from vlm.metrics.java import NotAvailable

sys.path.insert(0, str(Path(__file__).parents[1] / "families"))
import random_smolvlm as smolvlm


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("meteor", "spice"):
        monkeypatch.setattr(f"vlm.evaluation.task_types.caption.{name}", lambda *_: NotAvailable("not in this test"))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A data folder of coloured squares, and benchmarks that ask about them."""
    folder = tmp_path_factory.mktemp("squares")
    data = tiny.write_data(folder / "data", pictures=12)
    cards = []
    for name, dataset, kind in (("says", "squares", "caption"), ("answers", "squares-vqa", "vqa")):
        card = {"name": name, "about": name, "dataset": str(data.parent / f"{dataset}.yaml"), "split": "train"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**card, "kind": kind, "max_tokens": 6}))
        cards.append(str(folder / f"{name}.yaml"))
    return data.parent, cards


def measured(model: Any, benchmarks: tuple[Path, list[str]], to: Path, **more: Any) -> tuple[list[TaskResult], list]:
    data, cards = benchmarks
    results = evaluate(model, cards, Options(str(data), output=to, **more))
    return results, [[sample.output for sample in read_samples(to / result.task)] for result in results]


def test_a_server_of_our_own_model(benchmarks: tuple[Path, list[str]], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = load(str(tiny.write_card(tmp_path / "model")))
    with ChatServer(lambda body: model.chat(body["messages"], max_tokens=body["max_tokens"])).running() as server:
        there, said_there = measured(server.url, benchmarks, tmp_path / "there")
    here, said_here = measured(model, benchmarks, tmp_path / "here")
    assert said_there == said_here
    assert [result.figures for result in there] == [result.figures for result in here]
    assert len({text for said in said_here for text in said}) > 1, "the model says something about the picture"


def test_beams_of_a_card_are_for_models_loaded_here(benchmarks: tuple[Path, list[str]], tmp_path: Path) -> None:
    data, cards = benchmarks
    card = yaml.safe_load(Path(cards[0]).read_text())
    (tmp_path / "beams.yaml").write_text(yaml.safe_dump({**card, "name": "beams", "generation": {"beams": 3}}))
    torch.manual_seed(0)
    model = load(str(tiny.write_card(tmp_path / "model")))
    widths: list[int] = []
    written = model.replies

    def replies(*asked: Any, beams: int = 1, **options: Any) -> list[str]:
        widths.append(beams)
        return written(*asked, beams=beams, **options)

    model.replies = replies  # type: ignore[method-assign]
    measured(model, (data, [str(tmp_path / "beams.yaml")]), tmp_path / "here")
    assert set(widths) == {3}
    with (
        ChatServer(lambda body: "yes").running() as server,
        pytest.raises(BadInput, match="an address searches with no beams, got 3; expected 1"),
    ):
        measured(server.url, (data, [str(tmp_path / "beams.yaml")]), tmp_path / "there")


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        until = time.monotonic() + 120
        while True:
            try:
                httpx.get(url + "/models", timeout=5)
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the server has ended"
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.process
def test_transformers_own_server(benchmarks: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A random SmolVLM by the authors' code behind `transformers serve`, and by ours in this process."""
    for package in ("fastapi", "openai", "accelerate", "num2words"):
        pytest.importorskip(package)
    folder = tmp_path / "smolvlm"
    folder.mkdir()
    smolvlm.write_folder(folder)
    with transformers_serve(folder) as url:
        there, said_there = measured(url, benchmarks, tmp_path / "there", model_name=str(folder))
    here, said_here = measured(load(str(folder), offline=True), benchmarks, tmp_path / "here")
    assert said_there == said_here
    assert [result.figures for result in there] == [result.figures for result in here]
    assert all(result.usage is not None and result.usage.prompt_tokens for result in there)

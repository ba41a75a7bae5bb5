"""`vlm eval --model http://host/v1` of our own chat server: captions, answers and decisions as of the model here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
import yaml
from chatting import chatting

import vlm
from vlm.cli import main
from vlm.engine.engine import Engine
from vlm.engine.settings import EngineSettings
from vlm.evaluation.results import read_samples
from vlm.heads.decisions.decider import Decider, Temperatures
from vlm.metrics.java import NotAvailable
from vlm.server.http.auth import Keys

KEY = "k" * 20
PICTURES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model: a card's projector would be drawn anew each time that it is loaded."""
    home = tmp_path_factory.mktemp("model")
    return vlm.load(tiny.write_card(home / "card")).save(home / "tiny")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[httpx.Client]:
    """With the real engine and a key; its decisions have temperatures of their own."""
    model = vlm.load(folder)
    assert model.writer is not None
    engine = Engine(model.model, model.processor, EngineSettings(running=4)).start()
    decider = Decider(model.writer, Temperatures({"choice": 2.5, "yes_no": 0.5}, "decision.json"))
    with chatting(model, engine, keys=Keys({KEY: "read"}), decider=decider) as client:
        yield client
    engine.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Benchmarks about coloured squares: captions, open questions, yes or no, options."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_data(folder, pictures=PICTURES)
    rows: dict[str, list[dict[str, Any]]] = {"yes": [], "options": []}
    for number in range(PICTURES):
        own = {"image": f"{number}.png", "split": "train"}
        rows["yes"].append({**own, "question": "Is the square red?", "answers": ["no" if number % 4 else "yes"]})
        options = {"options": ["a red square", "blue", "green"], "answers": ["ABC"[number % 3]]}
        rows["options"].append({**own, "question": "What color is it?", **options})
    about = {"about": "squares", "licence": "none", "source": "made by the test", "folder": "squares"}
    for name, lines in rows.items():
        (folder / "squares" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        of = {"name": name, "annotations": f"{name}.jsonl", "splits": {"train": PICTURES}, **about}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(of))
    kinds = {
        "says": {"kind": "caption", "dataset": "squares.yaml"},
        "answers": {"kind": "vqa", "dataset": "squares-vqa.yaml"},
        "decides": {"kind": "vqa", "dataset": "yes.yaml", "protocol": "yes_no"},
        "chooses": {"kind": "choice", "dataset": "options.yaml"},
    }
    for name, kind in kinds.items():
        fields = {"name": name, "about": name, "split": "train", "max_tokens": 6, **kind}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    return folder


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("meteor", "spice"):
        monkeypatch.setattr(f"vlm.evaluation.task_types.caption.{name}", lambda *_: NotAvailable("not in this test"))


def evaluated(
    model: str, names: str, data: Path, to: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """What the command prints of these benchmarks, and what the model said."""
    tasks = ",".join(str(data / f"{name}.yaml") for name in names.split())
    words = ["eval", "--model", model, "--tasks", tasks, "--data", str(data), "--json", "--output", str(to)]
    assert main([*words, *options]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [one["model"] for one in results] == ["tiny"] * len(names.split())
    return results, [[sample.output for sample in read_samples(to / one["task"])] for one in results]


def figures(result: dict[str, Any]) -> dict[str, float]:
    """Each figure, and the ends of its interval where it has one."""
    found = {name: result[name] for name in result["intervals"]}
    for name, (low, high) in result["intervals"].items():
        found |= {} if low is None else {f"{name} from": low, f"{name} to": high}
    return found


def test_captions_and_answers_are_those_of_the_model_here(
    server: httpx.Client, folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("VLM_SERVER_KEY", KEY)
    url = f"{server.base_url}".rstrip("/") + "/v1"
    there, said_there = evaluated(url, "says answers", data, tmp_path / "there", capsys)
    here, said_here = evaluated(str(folder), "says answers", data, tmp_path / "here", capsys)
    assert said_there == said_here
    assert all(len(set(said)) > 1 for said in said_here), "the model says something about the picture"
    assert [figures(one) for one in there] == [figures(one) for one in here]


def test_decisions_are_those_of_the_model_here(
    server: httpx.Client, folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Before a temperature, though the server applies one, and after that of a file here."""
    monkeypatch.setenv("VLM_SERVER_KEY", KEY)
    (tmp_path / "decision.json").write_text(json.dumps({"temperature": {"noul": 3.0, "choice": 3.0}}))
    options = ("--decide", "--temperatures", str(tmp_path / "decision.json"))
    url = f"{server.base_url}".rstrip("/") + "/v1"
    there, said_there = evaluated(url, "decides chooses", data, tmp_path / "there", capsys, *options)
    here, said_here = evaluated(str(folder), "decides chooses", data, tmp_path / "here", capsys, *options)
    assert said_there == said_here
    wanted = {f"decided_{name}" for name in ("accuracy", "calibration_error", "brier_error", "brier_error_after")}
    for one, other in zip(there, here, strict=True):
        assert wanted <= figures(other).keys()
        assert other["decided_brier_error"] != other["decided_brier_error_after"]
        assert figures(one) == pytest.approx(figures(other), rel=1e-9, abs=1e-12)

"""The harness: cached, resumable, the same bytes whatever the batch."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from squares import FakeModel, write_benchmark

from vlm.api import Model, load
from vlm.errors import BadInput
from vlm.evaluation.results import read_run, read_samples
from vlm.evaluation.run import Options, evaluate
from vlm.metrics.java import NotAvailable

QUESTIONS = [
    {"color": "red", "question": "What color?", "answers": ["red"], "kind_of": "color"},
    {"color": "blue", "question": "What color?", "answers": ["Blue"], "kind_of": "color"},
    {"color": "green", "question": "What shape?", "answers": ["square"], "kind_of": "shape"},
]


def files(folder: Path) -> dict[str, bytes]:
    """What a run leaves, less its cache."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not p.name.startswith("requests.sqlite")
    }


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("meteor", "spice"):
        monkeypatch.setattr(f"vlm.evaluation.task_types.caption.{name}", lambda *_: NotAvailable("not in this test"))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[str]]:
    """A tiny model's card, a data folder, and a benchmark of each kind that generates or embeds."""
    folder = tmp_path_factory.mktemp("squares")
    model = str(tiny.write_card(folder / "model"))
    data = tiny.write_data(folder / "data", pictures=24)
    cards = []
    for name, dataset, split, kind in (
        ("says", "squares", "train", "caption"),
        ("finds", "squares", "train", "retrieval"),
        ("answers", "squares-vqa", "train", "vqa"),
    ):
        card = {"name": name, "about": name, "dataset": str(data.parent / f"{dataset}.yaml"), "split": split}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**card, "kind": kind, "max_tokens": 6}))
        cards.append(str(path))
    return model, data.parent, cards


def test_the_batch_size_changes_no_byte(squares: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    model, data, cards = squares
    loaded = load(model)
    for size in (1, 16):
        evaluate(loaded, cards, Options(str(data), batch_size=size, output=tmp_path / str(size)))
    assert files(tmp_path / "1") == files(tmp_path / "16")
    samples = list(read_samples(tmp_path / "1" / "says"))
    assert len({s.output for s in samples}) > 1  # the model says something about the picture


def seeded(model: str) -> Model:
    """What no file gives - the heads - starts the same."""
    torch.manual_seed(0)
    return load(model)


KILLED = """
import os, signal, sys, torch
from vlm.evaluation import model_under_test
from vlm.evaluation.run import Options, evaluate
from pathlib import Path
from vlm.evaluation.task_types import caption
from vlm.metrics.java import NotAvailable
model_under_test.CHUNK = 4
caption.meteor = caption.spice = lambda *_: NotAvailable("not in this test")
torch.manual_seed(0)
model, data, output, *cards = sys.argv[1:]
def report(task, done, total):
    if task == "answers" and done >= 8:
        os.kill(os.getpid(), signal.SIGKILL)
evaluate(model, cards, Options(data, output=Path(output)), report)
"""


@pytest.mark.process
def test_a_killed_run_goes_on_and_leaves_the_same_bytes(
    squares: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, cards = squares
    arguments = [model, str(data), str(tmp_path / "killed"), *cards]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    loaded = seeded(model)
    asked = []
    replies = loaded.replies
    with monkeypatch.context() as patch:
        patch.setattr(loaded, "replies", lambda said, **options: asked.append(len(said)) or replies(said, **options))
        patch.setattr(loaded, "embed_images", lambda *_: pytest.fail("a vector was computed again"))
        evaluate(loaded, cards, Options(str(data), output=tmp_path / "killed", resume=True))
    assert 0 < sum(asked) <= 24 - 8
    evaluate(seeded(model), cards, Options(str(data), output=tmp_path / "whole"))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    info, results = read_run(tmp_path / "killed")
    assert info.tasks == ("says", "finds", "answers")
    assert list(results) == ["says", "finds", "answers"]


def test_a_request_already_answered_is_not_asked_again(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", QUESTIONS, kind="vqa")
    model = FakeModel()
    options = Options(str(tmp_path / "data"), output=tmp_path / "run")
    first = evaluate(model, [card], options)  # type: ignore[arg-type]
    again = evaluate(model, [card], Options(str(tmp_path / "data"), output=tmp_path / "run", resume=True))  # type: ignore[arg-type]
    assert model.asked == 3
    assert first == again


def test_a_changed_picture_is_asked_again(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", QUESTIONS, kind="vqa")
    model = FakeModel()
    evaluate(model, [card], Options(str(tmp_path / "data"), output=tmp_path / "run"))  # type: ignore[arg-type]
    write_benchmark(tmp_path / "data", [{**QUESTIONS[0], "color": "green"}, *QUESTIONS[1:]], kind="vqa")
    [result] = evaluate(model, [card], Options(str(tmp_path / "data"), output=tmp_path / "run", resume=True))  # type: ignore[arg-type]
    assert model.asked == 4
    assert result.figures["accuracy"].value == pytest.approx(100 / 3, abs=1e-4)


def test_resuming_with_other_weights_is_refused(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", QUESTIONS, kind="vqa")
    data = str(tmp_path / "data")
    evaluate(FakeModel(), [card], Options(data, output=tmp_path / "run"))  # type: ignore[arg-type]
    before = files(tmp_path / "run")
    with pytest.raises(BadInput, match="other weights"):
        evaluate(FakeModel(weights="w2"), [card], Options(data, output=tmp_path / "run", resume=True))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="not empty"):
        evaluate(FakeModel(), [card], Options(data, output=tmp_path / "run"))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="expected --output"):
        evaluate(FakeModel(), [card], Options(data, resume=True))  # type: ignore[arg-type]
    assert files(tmp_path / "run") == before


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", QUESTIONS, kind="vqa")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "requests.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(BadInput, match=r"requests\.sqlite: damaged, or no request cache"):
        evaluate(FakeModel(), [card], Options(str(tmp_path / "data"), output=tmp_path / "run", resume=True))  # type: ignore[arg-type]


def test_all_wordings_are_asked_and_kept_apart(tmp_path: Path) -> None:
    prompts = ["{question}", "{question} Answer briefly."]
    card = write_benchmark(tmp_path / "data", QUESTIONS, kind="vqa", prompts=prompts)
    model = FakeModel(lambda color, question: color if question.endswith("briefly.") else "no idea")
    options = Options(str(tmp_path / "data"), output=tmp_path / "run", prompts="all")
    first, second = evaluate(model, [card], options)  # type: ignore[arg-type]
    assert (first.task, second.task) == ("squares-test", "squares-test@2")
    assert first.figures["accuracy"].value == 0
    assert second.figures["accuracy"].value == pytest.approx(200 / 3, abs=1e-4)
    assert next(s.prompt for s in read_samples(tmp_path / "run" / "squares-test@2")) == "What color? Answer briefly."
    assert len(evaluate(FakeModel(), [card], Options(str(tmp_path / "data")))) == 1  # type: ignore[arg-type]


def test_a_prompt_that_wants_what_an_example_has_not(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", QUESTIONS, kind="vqa", prompts=["{question} {context}"])
    with pytest.raises(BadInput, match=r"wants 'context', there is question"):
        evaluate(FakeModel(), [card], Options(str(tmp_path / "data")))  # type: ignore[arg-type]


def test_an_unreadable_picture_is_named_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    card = write_benchmark(tmp_path / "data", QUESTIONS, kind="vqa")
    whole = (tmp_path / "data" / "squares" / "2.png").read_bytes()
    (tmp_path / "data" / "squares" / "2.png").write_bytes(whole[:20])
    options = Options(str(tmp_path / "data"), output=tmp_path / "run", resume=True)
    with pytest.raises(BadInput, match=r"2\.png"):
        evaluate(FakeModel(), [card], options)  # type: ignore[arg-type]
    (tmp_path / "data" / "squares" / "2.png").write_bytes(whole)
    [result] = evaluate(FakeModel(), [card], options)  # type: ignore[arg-type]
    assert result.figures["accuracy"].n == 3

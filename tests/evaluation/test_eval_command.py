"""`vlm eval` as it is typed, with a model whose answers the test decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from squares import FakeModel, write_benchmark

from vlm.assets import cards
from vlm.cli import main

Command = Callable[..., tuple[int, str, str]]
PROMPTS = ["{question}", "{question} Answer briefly.", "{question} Answer at length."]
ROWS = [{"color": color, "question": "What color?", "answers": [color]} for color in ("red", "blue", "green", "red")]


@pytest.fixture
def card(tmp_path: Path) -> str:
    return write_benchmark(tmp_path / "data", ROWS, kind="vqa", prompts=PROMPTS)


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs `vlm eval` on the squares; `rule` is the model's."""

    def run(*arguments: str | Path, rule: Callable[[str, str], str] = lambda color, question: color) -> tuple:
        monkeypatch.setattr("vlm.evaluation.models.load", lambda name: FakeModel(rule))
        capsys.readouterr()
        code = main(["eval", "--data", str(tmp_path / "data"), *(str(a) for a in arguments)])
        return (code, *capsys.readouterr())

    return run


def test_how_much_the_wording_matters_is_said(evaluate: Command, card: str, tmp_path: Path) -> None:
    def rule(color: str, question: str) -> str:
        return "no idea" if question.endswith("length.") else color

    code, out, err = evaluate("--tasks", card, "--prompts", "all", "--output", tmp_path / "run", rule=rule)
    assert (code, err) == (0, "")
    assert "squares-test: accuracy moves by 100.0 over 3 prompts" in out
    assert [line.split()[0] for line in out.splitlines() if "accuracy  " in line] == [
        "squares-test", "squares-test@2", "squares-test@3",
    ]  # fmt: skip
    assert out.endswith(f"{tmp_path / 'run/report.html'}\n")
    assert "published" not in out
    assert "moves by" not in evaluate("--tasks", card)[1]


def test_progress_only_grows(evaluate: Command, card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.cli.output.LINE_SECONDS", 0.0)
    monkeypatch.setattr("vlm.evaluation.model_under_test.CHUNK", 1)
    _, _, err = evaluate("--tasks", card, "--prompts", "all")
    reached = [int(line.partition(" of 100")[0].rpartition(" ")[2]) for line in err.splitlines()]
    assert reached == sorted(reached)
    assert (len(reached), reached[-1]) == (12, 100)


def test_an_interrupted_evaluation_says_how_to_go_on(evaluate: Command, card: str, tmp_path: Path) -> None:
    def interrupt(color: str, question: str) -> str:
        if question.endswith("briefly."):
            raise KeyboardInterrupt
        return color

    arguments = ("--tasks", card, "--prompts", "all", "--output", tmp_path / "run")
    code, out, err = evaluate(*arguments, rule=interrupt)
    assert (code, out) == (130, "")
    assert err.splitlines() == [
        f"vlm: 1 of 3 tasks are done and reported in {tmp_path / 'run'}",
        f"vlm: what is answered is kept in {tmp_path / 'run'}; the same command with --resume goes on",
        "vlm: interrupted",
    ]
    assert evaluate(*arguments)[0] == 2, "not without --resume"
    assert evaluate(*arguments, "--resume")[0] == 0
    names = json.loads((tmp_path / "run/report.json").read_text())["run"]["tasks"]
    assert names == ["squares-test", "squares-test@2", "squares-test@3"]


def test_what_benchmarks_there_are(evaluate: Command) -> None:
    code, out, err = evaluate("--list", "--json")
    listed = json.loads(out)
    assert (code, err) == (0, "")
    assert [one["name"] for one in listed["benchmarks"]] == list(cards("eval"))
    assert "daquar" in listed["groups"]["vqa"]
    shown = evaluate("--list")[1]
    assert all(name in shown for name in (*cards("eval"), *listed["groups"]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "expected at least one benchmark; --list names them"),
        (["--tasks", "flickr8k"], "unknown benchmark 'flickr8k'; did you mean 'flickr8k-"),
        (["--tasks", "own.yaml"], "own.yaml: no such file; expected a benchmark card"),
        (["--tasks", "CARD", "--resume"], "--resume: expected --output"),
        (["--tasks", "CARD,daquar"], "data/daquar: no such folder"),
    ],
)
def test_bad_usage_is_one_line(evaluate: Command, card: str, arguments: list[str], says: str) -> None:
    code, out, err = evaluate(*(argument.replace("CARD", card) for argument in arguments))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert says in err

"""Three runs and more: every pair, corrected for there being many; and their figures as files for other tools."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from compared_runs import samples, write_run

from vlm.cli import main
from vlm.errors import BadInput
from vlm.evaluation.comparing.compare import compare
from vlm.evaluation.comparing.many import compare_all
from vlm.evaluation.report import leaderboard
from vlm.metrics.significance import holm

LOW, MIDDLE, HIGH = [0.0] * 14 + [1.0] * 6, [0.0] * 8 + [1.0] * 12, [1.0] * 20


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    scores = {"low": LOW, "middle": MIDDLE, "high": HIGH}
    tasks = {name: {"pets": samples(own), "birds": samples(own[::-1])} for name, own in scores.items()}
    return [write_run(tmp_path / name, own, model=f"model {name}") for name, own in tasks.items()]


def test_pairs_are_those_of_two_runs_and_their_p_is_corrected(runs: list[Path]) -> None:
    found = compare_all(runs)
    assert found.runs == {"low": "model low", "middle": "model middle", "high": "model high"}
    assert [task.task for task in found.tasks] == ["pets", "birds"]
    alone = compare(runs[0], runs[2]).tasks[0].main_figure
    assert alone is not None
    assert alone.paired is not None
    pair = found.tasks[0].pairs[1]
    assert (pair.a, pair.b, pair.difference, pair.p) == ("low", "high", alone.paired.difference, alone.paired.p)
    pairs = [pair for task in found.tasks for pair in task.pairs]
    assert len(pairs) == 6
    assert [pair.p_of_all for pair in pairs] == holm([pair.p or 0.0 for pair in pairs])
    assert pair.better == "high"
    assert found.tasks[0].figures["middle"].value == pytest.approx(60)


def test_of_many_pairs_a_chance_difference_is_none(tmp_path: Path) -> None:
    """Six samples of twenty change: p is 0.03 for one pair, and nothing among three."""
    base = [0.0] * 10 + [1.0] * 10
    changed = [1.0] * 6 + base[6:]
    folders = [write_run(tmp_path / n, {"pets": samples(s)}) for n, s in (("a", base), ("b", changed), ("c", base))]
    assert "B is better" in compare(folders[0], folders[1]).tasks[0].verdict
    pair = compare_all(folders).tasks[0].pairs[0]
    assert pair.p is not None
    assert pair.p_of_all is not None
    assert pair.p < 0.05 < pair.p_of_all
    assert pair.better is None


def test_tasks_that_only_some_runs_have(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", {"birds": samples(HIGH)})
    found = {task.task: task for task in compare_all([*runs, other]).tasks}
    assert (len(found["pets"].pairs), len(found["birds"].pairs)) == (3, 6)
    strange = write_run(tmp_path / "strange", {"fish": samples(HIGH)})
    with pytest.raises(BadInput, match="no task is finished in two of these runs"):
        compare_all([other, strange, write_run(tmp_path / "x", {"frogs": samples(HIGH)})])
    with pytest.raises(BadInput, match="named twice"):
        compare_all([*runs, runs[0]])


def test_the_command(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, runs)]) == 0
    out = capsys.readouterr().out
    assert "pets: accuracy" in out
    assert main(["compare", *map(str, runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tasks"][0]["pairs"][1]["better"] == "high"
    assert found["tasks"][0]["figures"]["low"]["value"] == pytest.approx(30)


def test_a_leaderboard_has_the_best_first_and_bold(runs: list[Path]) -> None:
    lines = leaderboard.markdown(leaderboard.read_runs(runs)).splitlines()
    assert lines[0] == "| Run | Model | pets (accuracy) | birds (accuracy) |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| high", "| middle", "| low"]
    assert lines[2] == "| high | model high | **100.0** | **100.0** |"
    assert lines[3].count("**") == 0


def test_csv_has_every_figure(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "figures.csv"
    assert main(["leaderboard", *map(str, runs), "--format", "csv", "--to", str(to)]) == 0
    found = list(csv.DictReader(io.StringIO(to.read_text())))
    assert len(found) == 3 * 2 * 2
    assert found[0]["metric"] == "accuracy"
    assert (float(found[0]["value"]), found[0]["main"], found[0]["n"]) == (pytest.approx(30), "1", "20")
    assert main(["leaderboard", str(runs[0]), "--format", "cvs"]) == 2
    assert "did you mean 'csv'" in capsys.readouterr().err
    assert main(["leaderboard", str(runs[0]), "--format", "tensorboard"]) == 2


def test_tensorboard_events(runs: list[Path], tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(["leaderboard", *map(str, runs), "--format", "tensorboard", "--to", str(tmp_path / "events")]) == 0
    read = events.EventAccumulator(str(tmp_path / "events" / "middle"))
    read.Reload()
    assert read.Scalars("pets/accuracy")[0].value == pytest.approx(60)


def test_an_offline_run_of_wandb(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert main(["leaderboard", *map(str, runs), "--format", "wandb", "--to", str(tmp_path / "w")]) == 0
    assert len(list((tmp_path / "w").rglob("*.wandb"))) == 3

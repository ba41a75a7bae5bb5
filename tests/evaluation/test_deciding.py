"""Decisions in the harness: calibration before and after a temperature, which is fitted on a validation split alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from PIL import Image

import vlm
from vlm.cli import main
from vlm.errors import BadInput
from vlm.evaluation.calibrating import calibrate, validation_split
from vlm.evaluation.card import load_card
from vlm.evaluation.run import Options, evaluate
from vlm.facade import Model
from vlm.heads.decisions import Choice, YesNo
from vlm.heads.decisions.temperature import fit, read, write

QUESTIONS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("deciding")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_CACHE", str(folder / "cache"))
        return vlm.load(str(tiny.write_card(folder / "model")), offline=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about squares, yes or no and of several options, in a validation and a test split; two benchmarks."""
    folder = tmp_path_factory.mktemp("squares")
    home = folder / "squares"
    home.mkdir()
    lines: dict[str, list[dict[str, Any]]] = {"yes": [], "choice": []}
    for number in range(2 * QUESTIONS):
        color = list(tiny.COLORS)[number % 4]
        Image.new("RGB", (40, 40), tiny.COLORS[color]).save(home / f"{number}.png")
        own = {"image": f"{number}.png", "split": "val" if number < QUESTIONS else "test"}
        said = "yes" if color == "red" else "no"
        lines["yes"].append({**own, "question": "Is the square red?", "answers": [said]})
        options = ["a red square", "blue", "green"]
        lines["choice"].append({**own, "question": "What color?", "options": options, "answers": ["ABC"[number % 3]]})
    lines["yes"].append({**lines["yes"][0], "question": "What color?", "answers": ["red"]})
    for name, rows in lines.items():
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        about = {"about": "squares", "licence": "none", "source": "made by the test", "folder": "squares"}
        card = {"name": name, "annotations": f"{name}.jsonl", "splits": {"val": None, "test": None}, **about}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(card))
        kind = {"kind": "vqa", "protocol": "yes_no"} if name == "yes" else {"kind": "choice"}
        bench = {"name": f"{name}-bench", "about": name, "dataset": f"{name}.yaml", "split": "test", **kind}
        (folder / f"{name}-bench.yaml").write_text(yaml.safe_dump({**bench, "max_tokens": 1}))
    return folder


def benches(data: Path) -> list[str]:
    return [str(data / "yes-bench.yaml"), str(data / "choice-bench.yaml")]


def test_calibrate_writes_what_decide_and_the_harness_apply(model: Model, data: Path, tmp_path: Path) -> None:
    cards, to = [load_card(path) for path in benches(data)], tmp_path / "decision.json"
    to.write_text(json.dumps({"labels": {"noul": ["Yes", "No"]}, "temperature": {"score": 3.0}}))
    fitted = calibrate(model, cards, to, split="val", data=str(data))
    assert [one.kind for one in fitted] == ["choice", "yes_no"]
    held = json.loads(to.read_text())
    assert held["labels"] == {"noul": ["Yes", "No"]}, "what else the file holds stays"
    assert held["temperature"].keys() == {"score", "choice", "noul"}
    assert read(to).of == pytest.approx({"score": 3.0} | {one.kind: one.temperature for one in fitted}, abs=1e-5)
    for one in fitted:
        assert {found.n for found in one.before.values()} == {QUESTIONS}, "the open question is no yes or no"
        assert one.before["accuracy"] == one.after["accuracy"]
        assert one.after["brier_error"].low is not None

    picture = Image.new("RGB", (40, 40), tiny.COLORS["red"])
    asked = [YesNo("Is the square red?"), Choice("What color?", ("a red square", "blue"))]
    (answers,) = model.decide([picture], asked, temperatures=to)
    assert [one.source for one in answers] == [str(to)] * 2
    assert answers[0].temperature == pytest.approx(fitted[1].temperature, abs=1e-5)

    options = Options(data=str(data), decide=True, temperatures=to)
    for result in evaluate(model, benches(data), options):
        assert result.settings["decide"] is True
        for name in ("calibration_error", "brier_error"):
            before, after = (result.figures[f"decided_{name}{end}"] for end in ("", "_after"))
            assert before.n == after.n == QUESTIONS
            assert before != after
            assert before.low is not None
            assert before.low <= before.value <= (before.high or 0)
        assert any(str(to) in note for note in result.notes)


def test_the_figures_are_those_of_the_answers(model: Model, data: Path) -> None:
    (result,) = evaluate(model, [str(data / "yes-bench.yaml")], Options(data=str(data), decide=True))
    assert result.figures.keys() >= {"accuracy", "decided_accuracy", "decided_calibration_error", "decided_brier_error"}
    assert not any(name.endswith("_after") for name in result.figures), "no temperature, so no figures after it"
    brier = []
    for number in range(QUESTIONS, 2 * QUESTIONS):
        (found,) = model.decide([data / "squares" / f"{number}.png"], [YesNo("Is the square red?")])[0]
        so = float(number % 4 == 0)
        brier.append(2 * (found.probabilities["yes"] - so) ** 2)
    assert result.figures["decided_brier_error"].value == pytest.approx(np.mean(brier), abs=1e-4)


@pytest.mark.parametrize(
    ("own", "kind", "line"),
    [
        (
            {"question": "What color?", "answers": ["red"]}, {"kind": "vqa", "protocol": "gqa"},
            "nothing to decide: no question has one right label among yes and no, or options",
        ),
        (
            {"captions": ["a red square"]}, {"kind": "caption"},
            "nothing to decide: kind caption; decided are kinds vqa and choice",
        ),
    ],
    ids=["open", "caption"],
)  # fmt: skip
def test_what_cannot_be_decided_is_answered_as_usual_and_said_in_a_line(
    model: Model, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], own: Any, kind: Any, line: str
) -> None:
    rows = [{"image": f"{number}.png", "split": "test", **own} for number in range(8)]
    (data / "squares" / "open.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = yaml.safe_load((data / "yes.yaml").read_text()) | {"name": "open", "annotations": "open.jsonl"}
    (data / "open.yaml").write_text(yaml.safe_dump(card))
    bench = {"name": "open-bench", "about": "open", "dataset": "open.yaml", "split": "test", "max_tokens": 1}
    (data / "open-bench.yaml").write_text(yaml.safe_dump(bench | kind))
    tasks = [str(data / "open-bench.yaml"), str(data / "yes-bench.yaml")]
    plain, _ = evaluate(model, tasks, Options(data=str(data)))
    undecided, decided = evaluate(model, tasks, Options(data=str(data), decide=True))
    assert undecided.figures == plain.figures
    assert [note for note in undecided.warnings if "decide" in note] == [line]
    assert line in undecided.notes
    assert "decided_accuracy" in decided.figures
    assert not [note for note in decided.warnings if "decide" in note]
    name = str(tiny.write_card(tmp_path / "model"))
    assert main(["eval", "--model", name, "--tasks", tasks[0], "--data", str(data), "--decide", "--offline"]) == 0
    assert f"vlm: open-bench: {line}\n" in capfd.readouterr().err


def test_a_test_split_is_refused(model: Model, data: Path, tmp_path: Path) -> None:
    card = load_card(benches(data)[0])
    for split in (None, "test"):
        with pytest.raises(BadInput, match=r"split 'test' is for testing.*there is val"):
            calibrate(model, [card], tmp_path / "d.json", split=split, data=str(data))
    with pytest.raises(BadInput, match="no split 'valid'; it has test, val"):
        validation_split(card, "valid")
    hidden = yaml.safe_load((data / "yes.yaml").read_text()) | {"names": {"val": "test"}}
    (tmp_path / "yes.yaml").write_text(yaml.safe_dump(hidden))
    (tmp_path / "yes-bench.yaml").write_text((data / "yes-bench.yaml").read_text())
    with pytest.raises(BadInput, match="split 'test' is for testing"):
        validation_split(load_card(str(tmp_path / "yes-bench.yaml")), "val")
    assert not (tmp_path / "d.json").exists()


def test_too_few_questions_and_other_kinds_are_refused(model: Model, data: Path, tmp_path: Path) -> None:
    cards = [load_card(path) for path in benches(data)]
    with pytest.raises(BadInput, match="kind yes_no: expected at least 20 questions to fit a temperature to, got 5"):
        calibrate(model, cards[:1], tmp_path / "d.json", split="val", data=str(data), limit=5)
    other = cards[0].model_copy(update={"kind": "caption"})
    with pytest.raises(BadInput, match="kind caption; expected kind vqa or choice"):
        calibrate(model, [other], tmp_path / "d.json", split="val", data=str(data))


def test_the_temperature_is_that_of_maximum_likelihood() -> None:
    """Answers drawn from known probabilities, said four times too surely."""
    generator = np.random.default_rng(0)
    true_NL = generator.normal(size=(4000, 3))
    chances = np.exp(true_NL) / np.exp(true_NL).sum(axis=1, keepdims=True)
    right = [int(generator.choice(3, p=row)) for row in chances]
    assert fit((4 * true_NL).tolist(), right) == pytest.approx(4, rel=0.1)
    shifted = (4 * true_NL - 1000).tolist()
    assert fit(shifted, right) == pytest.approx(fit((4 * true_NL).tolist(), right), rel=1e-4)
    assert fit([[0.0, -1.0]] * 30, [1] * 30) == pytest.approx(100, rel=0.01), "always wrong: no surer than chance"
    with pytest.raises(BadInput, match="all 30 answers are right; expected a wrong one"):
        fit([[0.0, -1.0]] * 30, [0] * 30)
    with pytest.raises(BadInput, match="0 answers"):
        fit([], [])


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([], "expected a JSON object"),
        ({"temperature": [1]}, "key temperature: expected an object"),
        ({"temperature": {"yesno": 1}}, "expected noul, choice, score, got 'yesno'"),
        ({"temperature": {"noul": 0}}, "temperature.noul: expected 0.01 to 100, got 0"),
        ({"temperature": {"noul": math.nan}}, "got nan"),
        ({"temperature": {"noul": True}}, "got True"),
        ({"temperature": {"noul": "2"}}, "got '2'"),
    ],
)
def test_a_broken_file_is_refused_and_left_alone(held: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(held))
    before = path.read_text()
    with pytest.raises(BadInput, match=message):
        read(path)
    with pytest.raises(BadInput, match=message):
        write(path, {"choice": 2.0})
    assert path.read_text() == before


def test_transformers_reads_the_file(tmp_path: Path) -> None:
    decision = pytest.importorskip("transformers.decision")
    write(tmp_path / "decision.json", {"yes_no": 2.0, "choice": 0.5})
    config = decision.DecisionConfig.from_pretrained(tmp_path)
    assert config.temperature == {"noul": 2.0, "choice": 0.5}
    config.save_pretrained(tmp_path / "again")
    assert read(tmp_path / "again" / "decision.json").of == {"yes_no": 2.0, "choice": 0.5}

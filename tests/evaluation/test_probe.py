"""What is learned from another split, and pictures of several classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from squares import COLORS, FakeModel, write_benchmark

from vlm.errors import BadInput
from vlm.evaluation.results import TaskResult, read_samples
from vlm.evaluation.run import Options, evaluate
from vlm.metrics.classification import multilabel_average_precision

ROWS = [{"color": c, "answers": [c]} for c in list(COLORS) * 2]


def with_train(folder: Path, each: int, wrong: bool = False, **card: Any) -> str:
    """The benchmark of `ROWS`, and `each` pictures a class to learn from, with rotated labels if `wrong`."""
    classes = {"classes": list(COLORS)}
    path = write_benchmark(folder, ROWS, **card)
    home, names = folder / "squares", list(COLORS)
    with (home / "rows.jsonl").open("a") as file:
        for number in range(each):
            for name in names:
                Image.new("RGB", (60 + number, 20), COLORS[name]).save(home / f"{name}{number}.png")
                label = names[(names.index(name) + 1) % 3] if wrong else name
                file.write(json.dumps({"image": f"{name}{number}.png", "split": "train", "answers": [label]}) + "\n")
    about = yaml.safe_load((folder / "squares.yaml").read_text())
    about["splits"]["train"] = 3 * each
    (folder / "squares.yaml").write_text(yaml.safe_dump(about | classes))
    return path


def run(folder: Path, card: str) -> TaskResult:
    [result] = evaluate(FakeModel(), [card], Options(str(folder / "data"), output=folder / "run", resume=True))  # type: ignore[arg-type]
    return result


def test_a_probe_learns_what_the_labels_of_its_split_say(tmp_path: Path) -> None:
    result = run(tmp_path, with_train(tmp_path / "data", 6, kind="probe"))
    assert result.figures["accuracy"].value == 100
    assert result.categories["red"]["accuracy"].n == 2
    assert "learned from 18 pictures of split train" in result.notes[0]
    rotated = run(tmp_path / "b", with_train(tmp_path / "b/data", 6, wrong=True, kind="probe"))
    assert rotated.figures["accuracy"].value == 0
    assert {s.prediction for s in read_samples(tmp_path / "b/run/squares-test")} == set(COLORS)


def test_few_shots(tmp_path: Path) -> None:
    card = with_train(tmp_path / "data", 4, kind="few_shot", shots=[1, 4], draws=3)
    result = run(tmp_path, card)
    assert (result.main, list(result.figures)) == ("accuracy_4_shot", ["accuracy_1_shot", "accuracy_4_shot"])
    assert [figure.value for figure in result.figures.values()] == [100, 100]
    assert run(tmp_path, card) == result, "the same draws"
    with pytest.raises(BadInput, match="shots: a class has 4 pictures in split train, expected 9 or more"):
        run(tmp_path / "b", with_train(tmp_path / "b/data", 4, kind="few_shot", shots=[9]))


def test_pictures_of_several_classes(tmp_path: Path) -> None:
    rows = [{"color": c, "answers": [c, "green"] if c != "green" else ["green"]} for c in list(COLORS) * 2]
    rows.append({"color": "red", "answers": ["blue"]})
    card = write_benchmark(tmp_path / "data", rows, kind="multilabel")
    about = yaml.safe_load((tmp_path / "data/squares.yaml").read_text()) | {"classes": list(COLORS)}
    (tmp_path / "data/squares.yaml").write_text(yaml.safe_dump(about))
    result = run(tmp_path, card)
    model = FakeModel()
    texts = model.embed_texts([f"a photo of a {name}." for name in COLORS])
    pictures = [model.embed_texts([str(row["color"])])[0] for row in rows]
    targets = [[name in row["answers"] for name in COLORS] for row in rows]  # type: ignore[operator]
    expected = multilabel_average_precision(pictures @ texts.T, targets)
    assert result.figures["mAP"].value == pytest.approx(100 * expected.value, abs=1e-4)
    assert [f["AP"].value / 100 for f in result.categories.values()] == pytest.approx(expected.per_class, abs=1e-6)
    low, high = result.figures["mAP"].low, result.figures["mAP"].high
    assert low is not None
    assert high is not None
    assert 0 <= low <= result.figures["mAP"].value <= high <= 100


def test_the_interval_of_mean_average_precision_holds_its_value(tmp_path: Path) -> None:
    """Rare classes: resamples, in which pictures are there twice, lie above the value."""
    rows = [{"color": list(COLORS)[n % 3], "answers": ["blue"] if n in (4, 9, 20) else ["red"]} for n in range(24)]
    card = write_benchmark(tmp_path / "data", rows, kind="multilabel")
    about = yaml.safe_load((tmp_path / "data/squares.yaml").read_text()) | {"classes": list(COLORS)}
    (tmp_path / "data/squares.yaml").write_text(yaml.safe_dump(about))
    found = run(tmp_path, card).figures["mAP"]
    assert found.low is not None
    assert found.high is not None
    assert found.error is not None
    assert found.low < found.value < found.high
    assert found.high - found.value == pytest.approx(min(1.96 * found.error, 100 - found.value), rel=1e-3)

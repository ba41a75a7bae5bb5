"""A recipe may name benchmarks that must not be in what it learns: training refuses or warns, with the count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from vlm import config
from vlm.cli import main
from vlm.errors import BadInput
from vlm.evaluation.overlap import before_training
from vlm.evaluation.overlap.before_training import check_overlap
from vlm.training.recipe import Recipe

LONG = "a brown dog with a red ball runs over the wet green grass"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight pictures to learn from; a benchmark of four, of which one is there as a file and one has a text that is."""
    chance = np.random.default_rng(0)
    home = tmp_path / "own"
    home.mkdir()

    def row(name: str, caption: str, split: str) -> dict[str, Any]:
        Image.fromarray(chance.integers(0, 255, (40, 40, 3), np.uint8)).resize((160, 160)).save(home / name)
        return {"id": name, "image": name, "captions": [caption], "split": split}

    rows = [row(f"train{n}.png", LONG if n == 0 else f"a dog {n}", "train") for n in range(8)]
    rows += [row(f"test{n}.png", LONG if n == 0 else f"a cat {n}", "test") for n in range(3)]
    rows.append(row("test3.png", "a dog 5", "test"))  # a short text that is there whole is no sign
    shutil.copy(home / "train4.png", home / "test1.png")
    (home / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    about = {"about": "x", "licence": "none", "source": "made by the test"}
    card = {"name": "own", "folder": "own", "annotations": "rows.jsonl", "splits": {"train": 8, "test": 4}, **about}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(card))
    bench = {"name": "bench", "about": "x", "dataset": "own.yaml", "split": "test", "kind": "caption"}
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(bench))
    return tmp_path


def recipe(data: Path, **overlap: Any) -> dict[str, Any]:
    return {
        "model": "nano", "objective": {"kind": "bag_of_words", "dataset": str(data / "own.yaml")}, "data": str(data),
        "output": str(data / "run"), "steps": 1, "batch": 2, "optimizer": {"lr": 0.1},
        "overlap": {"benchmarks": [str(data / "bench.yaml")], **overlap},
    }  # fmt: skip


def test_training_is_refused_with_the_count(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "recipe.yaml").write_text(yaml.safe_dump(recipe(data)))
    assert main(["train", str(data / "recipe.yaml")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 4 samples are in the training data (1 by their words, 1 by their pictures)" in line
    assert "take them out, or set overlap.found=warn" in line
    assert not (data / "run").exists()


def test_a_warning_says_the_same_and_is_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config.parse(Recipe, recipe(data, found="warn"), "recipe")
    told: list[str] = []
    found = check_overlap(made, told.append)
    [one] = found
    assert (one.samples, one.shared, one.by_text, one.by_picture, one.byte_for_byte) == (4, 2, 1, 1, 1)
    assert told == [str(found[0])]
    (data / "run" / "checkpoint").mkdir()
    monkeypatch.setattr(before_training, "compare_texts", lambda *_: pytest.fail("it was looked through again"))
    assert check_overlap(made, told.append) == found
    assert len(told) == 2, "it is told again"


def test_clean_data_pass_without_a_word(data: Path) -> None:
    (data / "clean.yaml").write_text((data / "bench.yaml").read_text().replace("own.yaml", "clean_data.yaml"))
    card = yaml.safe_load((data / "own.yaml").read_text())
    (data / "clean_data.yaml").write_text(yaml.safe_dump({**card, "name": "clean", "annotations": "clean.jsonl",
                                                          "splits": {"test": 2}}))  # fmt: skip
    lines = (data / "own/rows.jsonl").read_text().splitlines()
    (data / "own/clean.jsonl").write_text("\n".join(lines[10:12]) + "\n")
    made = config.parse(Recipe, recipe(data, benchmarks=[str(data / "clean.yaml")]), "recipe")
    assert check_overlap(made, lambda line: pytest.fail(line)) == []


def test_what_a_recipe_reads(data: Path) -> None:
    captions = {"dataset": "a", "use": "captions", "share": 1}
    sources = [captions, {"dataset": "b", "split": "val", "use": "clips", "share": 1}]
    mixture = {**recipe(data), "objective": {"kind": "instruct", "sources": sources}}
    assert config.parse(Recipe, mixture, "recipe").objective.reads() == ["a:train", "b:val"]
    text = {**recipe(data), "objective": {"kind": "text", "path": "some.txt"}}
    with pytest.raises(BadInput, match="overlap: expected an objective that reads data sets"):
        check_overlap(config.parse(Recipe, text, "recipe"), print)
    with pytest.raises(BadInput, match=r"key overlap\.benchmarks"):
        config.parse(Recipe, recipe(data, benchmarks=[]), "recipe")


def test_conversations_of_a_file_are_looked_through(data: Path) -> None:
    """A picture that is there as a file, a text that is in a reply; words alone are passed over."""

    def said(*content: Any, reply: str) -> str:
        asked = [{"type": "image", "image": name} for name in content] + [{"type": "text", "text": "What?"}]
        return json.dumps({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]})

    lines = [said("own/train4.png", "own/train3.png", reply="a dog 4"), said("own/train2.png", reply=LONG)]
    (data / "said.jsonl").write_text("\n".join([*lines, said(reply="nothing")]) + "\n")
    objective = {"kind": "instruct", "sources": [{"file": str(data / "said.jsonl")}]}
    with pytest.raises(BadInput) as refused:
        check_overlap(config.parse(Recipe, {**recipe(data), "objective": objective}, "recipe"), print)
    found = str(refused.value)
    with pytest.raises(BadInput) as refused:
        check_overlap(config.parse(Recipe, recipe(data), "recipe"), print)
    assert found == str(refused.value).replace(f"{data}/own.yaml:train train0.png", f"{data}/said.jsonl line 2")

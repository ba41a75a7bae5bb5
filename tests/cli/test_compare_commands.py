"""`vlm compare` and `vlm overlap` as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import Done

from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.results import Figure, RunInfo, Sample, TaskResult, write_task

Vlm = Callable[..., Done]


def write_run(folder: Path, outputs: list[str], prompt: str = "{question}") -> Path:
    """A run of one task: is the output "yes"?"""
    folder.mkdir()
    about = {"model": "nano", "weights": "ab" * 32}
    (folder / "run.json").write_text(RunInfo(**about, version="0.1.0", data="d", tasks=("pets",)).model_dump_json())
    samples = [
        Sample(
            id=f"q{i}",
            inputs={"image": f"{i}.jpg"},
            prompt=prompt.format(question="A cat?"),
            output=output,
            references=("yes",),
            scores={"right": float(output == "yes")},
        )
        for i, output in enumerate(outputs)
    ]
    accuracy = 100 * float(np.mean([sample.scores["right"] for sample in samples]))
    result = TaskResult(
        task="pets",
        **about,
        card=BenchmarkCard(name="pets", about="", dataset="pets", split="test", kind="vqa"),
        prompt=prompt,
        settings={"limit": len(outputs)},
        main="accuracy",
        figures={
            "accuracy": Figure(value=accuracy, n=len(samples), sample_score="right", scale=100),
            "bleu": Figure(value=0.5, n=len(samples)),
        },
    )
    write_task(folder / "pets", result, samples)
    return folder


def test_compare_says_who_is_better_and_shows_what_changed(vlm_command: Vlm, tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", ["no"] * 10 + ["yes"] * 5), write_run(tmp_path / "b", ["yes"] * 14 + ["no\x1b[2J"])
    done = vlm_command("compare", a, b, "--flips", "2")
    assert (done.code, done.err) == (0, "")
    assert "pets: B is better by 60.00 (" in done.out
    assert "accuracy: 10 samples better, 1 worse, 4 the same (15 pictures)" in done.out
    assert "outputs: 11 of 15 differ" in done.out
    assert done.out.count("    A: ") == 2
    assert "references: yes" in done.out
    assert "WARNING" not in done.out
    assert "\x1b" not in done.out
    assert vlm_command("compare", a, b, "--flips", "0").out.count("    A: ") == 0


def test_compare_names_what_differs(vlm_command: Vlm, tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", ["no", "yes", "yes"])
    b = write_run(tmp_path / "b", ["no", "yes"], prompt="{question} One word.")
    done = vlm_command("compare", a, b)
    assert done.code == 0
    assert "differs: prompt: {question} -> {question} One word." in done.out
    assert "differs: settings.limit: 3 -> 2" in done.out
    assert "WARNING: prompt of 2 of 2 samples differ" in done.out
    assert "WARNING: 1 samples only in A, 0 only in B" in done.out
    assert "pets: no difference: accuracy 50.00 and 50.00, the same on each of 2 samples" in done.out


def test_compare_as_json(vlm_command: Vlm, tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", ["no", "yes"]), write_run(tmp_path / "b", ["yes", "yes"], prompt="Q: {question}")
    done = vlm_command("compare", a, b, "--json")
    assert done.code == 0
    found = done.json
    assert "prompt of 2 of 2" in done.err
    assert found["a"]["model"] == "nano"
    (task,) = found["tasks"]
    accuracy, bleu = task["figures"]
    assert (accuracy["a"], accuracy["b"], accuracy["paired"]["p"]) == (50, 100, 1)
    assert bleu["paired"] is None
    assert [flip["id"] for flip in task["flips"]] == ["q0"]
    assert {one["what"] for one in task["differs"]} == {"prompt"}


def test_compare_of_no_run_is_one_line(vlm_command: Vlm, tmp_path: Path) -> None:
    good = write_run(tmp_path / "a", ["yes"])
    done = vlm_command("compare", good, tmp_path)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert "run.json: no such file" in done.err
    (good / "pets" / "samples.jsonl").write_text("{")
    done = vlm_command("compare", good, good)
    assert (done.code, len(done.complaints)) == (2, 1)
    assert "samples.jsonl:1: not JSON" in done.err


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A training folder and a benchmark folder: one copy, one smaller, one other, one broken."""
    train, test = tmp_path / "train", tmp_path / "test"
    for folder in (train, test):
        folder.mkdir()
    random = np.random.default_rng(0)
    images = [
        Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
        for _ in range(4)
    ]
    for number, image in enumerate(images[:3]):
        image.save(train / f"{number}.png")
    images[0].save(test / "copy.png")
    images[1].resize((60, 50)).save(test / "smaller.jpg", quality=60)
    images[3].save(test / "other.png")
    (test / "broken.jpg").write_bytes(b"no picture")
    return train, test


def test_overlap_finds_pictures_and_draws_them(vlm_command: Vlm, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    sheet = tmp_path / "pairs.png"
    done = vlm_command("overlap", *pictures, "--sheet", sheet)
    assert done.code == 0
    assert "1 pictures left out, such as" in done.err
    assert "broken.jpg" in done.err
    assert "texts: none to compare" in done.out
    assert "1 of 3 (33.3%) are there byte for byte" in done.out
    assert "1 of 3 (33.3%) look like one that is" in done.out
    lines = [line for line in done.out.splitlines() if "copy.png" in line or "smaller.jpg" in line]
    assert [Path(line.split()[-1]).name for line in lines] == ["0.png", "1.png"]
    with Image.open(sheet) as image:
        assert image.size == (3 * 16 + 2 * 320, 16 + 2 * 280)


def test_overlap_as_json(vlm_command: Vlm, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    found = vlm_command("overlap", *pictures, "--json").json
    assert (found["pictures"]["exact"], found["pictures"]["near"], found["pictures"]["samples"]) == (1, 1, 2)
    assert len(found["pictures"]["unreadable"]) == 1
    assert found["pictures"]["pairs"][0]["exact"] is True
    assert found["sheet"] is None
    alone = tmp_path / "alone"
    alone.mkdir()
    (pictures[1] / "other.png").rename(alone / "other.png")
    done = vlm_command("overlap", pictures[0], alone, "--sheet", tmp_path / "none.png", "--json")
    assert (done.json["pictures"]["pairs"], done.json["sheet"]) == ([], None)
    assert not (tmp_path / "none.png").exists()


def test_overlap_of_cards(vlm_command: Vlm, tmp_path: Path) -> None:
    """A benchmark card names its data set and split."""
    (tmp_path / "data" / "pets").mkdir(parents=True)
    Image.effect_noise((40, 40), 90).save(tmp_path / "data" / "pets" / "1.png")
    Image.effect_noise((40, 40), 90).save(tmp_path / "data" / "pets" / "2.png")
    words = "a brown dog runs over the green grass of a park"
    rows = [
        {"image": "1.png", "captions": [words], "split": "train"},
        {"image": "2.png", "captions": ["A brown dog runs over the green grass!"], "split": "test"},
    ]
    (tmp_path / "data" / "pets" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = tmp_path / "pets.yaml"
    card.write_text(
        "{name: pets, about: a, licence: l, source: s, folder: pets, annotations: all.jsonl,"
        " splits: {train: 1, test: 1}}"
    )
    benchmark = tmp_path / "bench.yaml"
    benchmark.write_text(f"{{name: bench, about: a, dataset: {card}, split: test, kind: caption}}")
    done = vlm_command("overlap", f"{card}:train", benchmark, "--data", tmp_path / "data")
    assert done.code == 0
    assert "texts: 1 of 1 (100.0%) samples share 8 words in a row" in done.out
    assert "a brown dog runs over the green grass" in done.out
    found = vlm_command("overlap", f"{card}:train", f"{card}:test", "--data", tmp_path / "data", "--json").json
    assert (found["texts"]["overlapping"], found["texts"]["exact"], found["pictures"]["pairs"]) == (1, 0, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flickr8k:nowhere", "flickr8k:test", "--data", "."], "no split 'nowhere'"),
        (["flicr8k:train", "flickr8k", "--data", "."], "did you mean 'flickr8k'"),
        (["flickr8k-caption", "flickr8k:test", "--data", "."], "unknown dataset"),
        (["a", "b", "--distance", "40"], "--distance"),
    ],
)
def test_bad_sources_are_one_line(
    vlm_command: Vlm, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flickr8k").mkdir()
    (tmp_path / "flickr8k" / "captions.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    done = vlm_command("overlap", *arguments)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert message in done.err

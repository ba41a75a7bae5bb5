"""Going on with a run that was cut off, interrupted or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from squares import FakeModel, write_benchmark

from vlm.errors import BadInput
from vlm.evaluation import model_under_test, results
from vlm.evaluation.results import read_info, read_run
from vlm.evaluation.run import Options, evaluate
from vlm.files import atomic_write

ROWS = [{"color": c, "question": f"What color is {i}?", "answers": [c]} for i, c in enumerate(["red", "blue"] * 4)]


class Harness:
    """One benchmark with two prompts, evaluated into folders by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = write_benchmark(folder / "data", ROWS, kind="vqa", prompts=["{question}", "{question} Briefly."])

    def run(self, name: str, model: FakeModel | None = None, **options: Any) -> FakeModel:
        model = model or FakeModel()
        made = Options(str(self.folder / "data"), output=self.folder / name, **{"prompts": "all", **options})
        evaluate(model, [self.card], made)  # type: ignore[arg-type]
        return model

    def files(self, name: str) -> dict[str, bytes]:
        """What a run leaves, less its cache."""
        home = self.folder / name
        found = (p for p in home.rglob("*") if p.is_file() and not p.name.startswith("requests.sqlite"))
        return {str(p.relative_to(home)): p.read_bytes() for p in found}


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


def test_an_interrupted_run_names_what_is_unfinished_and_goes_on(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_under_test, "CHUNK", 4)

    def interrupted(color: str, question: str) -> str:
        if question == "What color is 5? Briefly.":
            raise KeyboardInterrupt
        return color

    with pytest.raises(KeyboardInterrupt):
        harness.run("run", FakeModel(interrupted))
    info, finished = read_run(harness.folder / "run")
    assert info.tasks == ("squares-test", "squares-test@2")
    assert list(finished) == ["squares-test"]
    assert harness.run("run", resume=True).asked == 4, "what was answered is not asked again"
    harness.run("whole")
    assert harness.files("run") == harness.files("whole")


@pytest.mark.parametrize("name", ["squares-test/results.json", "squares-test@2/samples.jsonl"])
@pytest.mark.parametrize("damage", [b"", b'{"task": ', b"\xff\x00", b"[]", b'{"task": 3}'])
def test_damaged_files_of_the_run_are_made_anew(harness: Harness, name: str, damage: bytes) -> None:
    harness.run("run")
    whole = harness.files("run")
    (harness.folder / "run" / name).write_bytes(damage)
    assert harness.run("run", resume=True).asked == 0
    assert harness.files("run") == whole


@pytest.mark.parametrize("name", ["squares-test@2/results.json", "squares-test@2/samples.jsonl", "run.json"])
def test_damaged_files_that_are_kept_are_named_before_anything_is_asked(harness: Harness, name: str) -> None:
    harness.run("run")
    (harness.folder / "run" / name).write_bytes(b'{"task": ')
    (harness.folder / "run" / "requests.sqlite").unlink()
    model = FakeModel()
    with pytest.raises(BadInput, match=rf"{name}(:1)?: not JSON"):
        harness.run("run", model, resume=True, prompts="first")
    assert model.asked == 0


def test_an_older_result_never_stands_beside_newer_samples(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.run("run", prompts="first")

    def killed(path: Path, content: str) -> None:
        if path.name == "results.json":
            raise KeyboardInterrupt
        atomic_write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(results, "atomic_write", killed)
        with pytest.raises(KeyboardInterrupt):
            harness.run("run", resume=True, prompts="first", limit=3)
    assert read_run(harness.folder / "run")[1] == {}


def test_tasks_of_before_are_kept(harness: Harness) -> None:
    harness.run("run")
    harness.run("run", resume=True, prompts="first", limit=3)
    assert read_info(harness.folder / "run").tasks == ("squares-test", "squares-test@2")
    finished = read_run(harness.folder / "run")[1]
    assert [result.settings["limit"] for result in finished.values()] == [3, None]


def test_a_damaged_cache_is_named(harness: Harness) -> None:
    harness.run("run")
    cache = harness.folder / "run" / "requests.sqlite"
    whole = cache.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"x" * len(whole), whole[:4096] + b"\xaa" * (len(whole) - 4096)):
        cache.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"requests\.sqlite: damaged, or no request cache"):
            harness.run("run", resume=True)


def test_without_its_cache_a_run_asks_again_and_leaves_the_same_bytes(harness: Harness) -> None:
    harness.run("run")
    whole = harness.files("run")
    (harness.folder / "run" / "requests.sqlite").unlink()
    assert harness.run("run", resume=True).asked == 16
    assert harness.files("run") == whole

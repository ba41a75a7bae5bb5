"""Two runs that were not given the same: what differs, what only one has, and what can still be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compared_runs import CARD, both, samples, write_run

from vlm.errors import BadInput
from vlm.evaluation.comparing.compare import compare
from vlm.evaluation.results import Figure, read_result, write_task


def test_missing_samples_are_counted_and_left_out(tmp_path: Path) -> None:
    task = both(tmp_path, samples([1, 0, 0, 1, 1])[:4], samples([0, 1, 0, 1, 0])[1:])
    assert (task.samples, task.only_a, task.only_b) == (3, 1, 1)
    (warning,) = task.warnings
    assert warning.startswith("1 samples only in A, 1 only in B: compared on the 3 in both")
    assert (task.figures[0].a, task.figures[0].b) == pytest.approx((100 / 3, 200 / 3))


def test_samples_without_a_score_are_counted(tmp_path: Path) -> None:
    task = both(tmp_path, samples([1, None, 0, 1]), samples([None, 0, 1, 1]))
    figure = task.figures[0]
    assert (figure.unscored, figure.better, figure.worse, figure.same) == (2, 1, 0, 1)


def test_a_score_that_depends_on_all_samples_is_paired_only_with_the_same_ones(tmp_path: Path) -> None:
    """A rank among ten candidates says nothing of one among twenty."""
    recall = {"recall": Figure(value=50, n=10, sample_score="right", scale=100, joint=True)}
    rows = samples([0, 1] * 5)
    first = write_run(tmp_path / "a", {"pets": rows}, figures=recall, main="recall")
    second = write_run(tmp_path / "b", {"pets": [*rows, *samples([1] * 12)[10:]]}, figures=recall, main="recall")
    (task,) = compare(first, second).tasks
    assert task.figures[0].paired is None
    assert task.verdict.startswith("recall 50.00 and 50.00; not paired (a sample's score depends on all of them")
    assert task.verdict.endswith("so no test")
    assert task.flips == ()
    assert compare(first, first).tasks[0].figures[0].paired is not None


def test_a_score_that_neither_run_gives_a_sample_is_not_missing(tmp_path: Path) -> None:
    """The samples of the other direction of a retrieval."""
    other = [s.model_copy(update={"id": f"x{s.id}", "scores": {"left": 1.0}}) for s in samples([1, 1])]
    for name, rows in (("a", samples([1, 0])), ("b", samples([0, 0]))):
        task_folder = write_run(tmp_path / name, {"pets": rows}) / "pets"
        write_task(task_folder, read_result(task_folder), [*rows, *other])
    (task,) = compare(tmp_path / "a", tmp_path / "b").tasks
    assert (task.samples, task.figures[0].unscored) == (4, 0)


def test_no_sample_in_common(tmp_path: Path) -> None:
    other = [sample.model_copy(update={"id": f"x{sample.id}"}) for sample in samples([1, 1])]
    task = both(tmp_path, samples([1, 0]), other)
    assert task.verdict == "nothing to compare: no sample is in both runs"


def test_what_the_runs_were_given_differently(tmp_path: Path) -> None:
    a, b = samples([1, 0, 1]), samples([1, 0, 1])
    b[1] = b[1].model_copy(update={"references": ("no",)})
    b = [sample.model_copy(update={"prompt": f"Q: {sample.prompt}"}) for sample in b]
    task = both(
        tmp_path, a, b,
        prompt="Q: {question}", settings={"max_tokens": 8, "limit": None, "beams": 4}, weights="cd" * 32,
        version="0.2.0", card=CARD.model_copy(update={"protocol": "vqav2"}),
    )  # fmt: skip
    assert {d.what: (d.a, d.b) for d in task.differs} == {
        "weights": ("ab" * 32, "cd" * 32),
        "prompt": ("", "Q: {question}"),
        "settings.max_tokens": (16, 8),
        "settings.beams": (None, 4),
        "card.protocol": ("exact", "vqav2"),
    }
    assert len(task.warnings) == 2
    assert "references of 1 of 3 samples differ, such as 'q1'" in task.warnings[0]
    assert "prompt of 3 of 3 samples differ" in task.warnings[1]
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [d.what for d in found.differs] == ["weights", "version"]


def test_only_notes_that_differ_are_told(tmp_path: Path) -> None:
    rows = samples([1, 0, 1])
    first = write_run(tmp_path / "a", {"pets": rows}, notes=("no Java", "3 captions"))
    (task,) = compare(first, write_run(tmp_path / "b", {"pets": rows}, notes=("no Java", "2 captions"))).tasks
    assert [(d.what, d.a, d.b) for d in task.differs] == [("notes", ["3 captions"], ["2 captions"])]


def test_tasks_of_one_run_only_and_unfinished_ones(tmp_path: Path) -> None:
    rows = samples([0, 1])
    first = write_run(tmp_path / "a", {"pets": rows, "cars": rows, "cut": rows})
    (first / "cut" / "results.json").unlink()
    found = compare(first, write_run(tmp_path / "b", {"cats": rows, "pets": rows}))
    assert ([task.task for task in found.tasks], found.only_a, found.only_b) == (["pets"], ("cars",), ("cats",))
    assert (found.unfinished_a, found.unfinished_b) == (("cut",), ())


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    good = write_run(tmp_path / "a", {"pets": samples([1, 0])})
    with pytest.raises(BadInput, match=r"nowhere.run\.json: no such file"):
        compare(good, tmp_path / "nowhere")
    twice = write_run(tmp_path / "b", {"pets": samples([1, 0]) + samples([1])})
    with pytest.raises(BadInput, match="1 ids more than once, such as 'q0'"):
        compare(good, twice)
    (twice / "pets" / "results.json").unlink()
    with pytest.raises(BadInput, match=r"no finished task of 1 \(pets\)"):
        compare(good, twice)
    lines = (good / "pets" / "samples.jsonl").read_text().splitlines()
    broken = json.loads(lines[1]) | {"scores": {"right": float("nan")}}
    (good / "pets" / "samples.jsonl").write_text(f"{lines[0]}\n{json.dumps(broken)}\n")
    with pytest.raises(BadInput, match="sample 'q1': right is nan"):
        compare(good, good)

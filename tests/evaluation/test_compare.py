"""Two runs: which is better, how sure that is, and why they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.compare import Comparison, TaskComparison, compare
from vlm.evaluation.results import Figure, RunInfo, Sample, TaskResult, write_task
from vlm.metrics.statistics import mcnemar

CARD = BenchmarkCard(name="pets", about="", dataset="pets", split="test", kind="vqa", prompts=("{question}",))


def samples(scores: Sequence[float | None], each: int = 1, **changes: Any) -> list[Sample]:
    """One sample a score, `each` to a picture."""
    return [
        Sample(
            id=f"q{i}",
            inputs={"image": f"{i // each}.jpg"},
            prompt=f"Is animal {i} a cat?",
            output="yes" if score else "no",
            references=("yes",),
            scores={"right": score},
            cluster=f"{i // each}.jpg",
        ).model_copy(update=changes)
        for i, score in enumerate(scores)
    ]


def write_run(folder: Path, tasks: Mapping[str, list[Sample]], **changes: Any) -> Path:
    """A run whose tasks have an accuracy in percent and a figure that is no mean of samples."""
    info = {"model": "nano", "weights": "ab" * 32, "version": "0.1.0", "data": "data", "tasks": tuple(tasks)}
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(
        RunInfo.model_validate(info | {k: v for k, v in changes.items() if k in info}).model_dump_json()
    )
    for task, rows in tasks.items():
        scores = [row.scores["right"] for row in rows if row.scores["right"] is not None]
        accuracy = 100 * float(np.mean(scores)) if scores else 0.0
        result = TaskResult(
            task=task,
            model="nano",
            weights="ab" * 32,
            card=CARD,
            main="accuracy",
            settings={"limit": None, "max_tokens": 16},
            figures={
                "accuracy": Figure(value=accuracy, n=len(rows), sample_score="right", scale=100),
                "bleu": Figure(value=0.25, n=len(rows)),
            },
        )
        write_task(folder / task, result.model_copy(update=changes), rows)
    return folder


def both(tmp_path: Path, a: list[Sample], b: list[Sample], **changes: Any) -> TaskComparison:
    first, second = write_run(tmp_path / "a", {"pets": a}), write_run(tmp_path / "b", {"pets": b}, **changes)
    (task,) = compare(first, second).tasks
    return task


def test_b_is_better(tmp_path: Path) -> None:
    a, b = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1] * 3, [1, 1, 1, 1, 1, 0, 0, 0, 1, 1] * 3
    task = both(tmp_path, samples(a), samples(b))
    accuracy, bleu = task.figures
    assert (accuracy.a, accuracy.b) == pytest.approx((20, 70))
    assert (accuracy.better, accuracy.worse, accuracy.same) == (15, 0, 15)
    assert accuracy.paired is not None
    assert accuracy.paired.p == task.p_of_all == mcnemar(15, 0)
    assert accuracy.paired.difference.value == pytest.approx(50)
    low, high = accuracy.paired.difference.low, accuracy.paired.difference.high
    assert low is not None
    assert 25 < low < 50
    assert task.verdict == f"B is better by 50.00 ({low:.2f} to {high:.2f}) accuracy, p < 0.001"
    assert (bleu.a, bleu.b, bleu.paired, bleu.note) == (0.25, 0.25, None, "no mean of samples")
    assert (task.samples, task.outputs_changed, task.warnings, task.differs) == (30, 15, (), ())


def test_a_is_better_with_its_interval_turned_round(tmp_path: Path) -> None:
    task = both(tmp_path, samples([0.9, 0.8, 0.9, 1, 0.8, 0.9] * 5), samples([0.3, 0.1, 0.2, 0.3, 0.3, 0.1] * 5))
    assert task.verdict.startswith("A is better by 66.67 (6")
    assert task.figures[0].paired is not None
    assert task.figures[0].paired.difference.value == pytest.approx(-66.67, abs=0.01)


def test_of_ranks_less_is_better(tmp_path: Path) -> None:
    figures = {"mean_rank": Figure(value=1, n=12, sample_score="right")}
    a = write_run(tmp_path / "a", {"pets": samples([9.0] * 6 + [8] * 6)}, figures=figures, main="mean_rank")
    b = write_run(tmp_path / "b", {"pets": samples([1.0] * 6 + [2] * 6)}, figures=figures, main="mean_rank")
    (task,) = compare(a, b).tasks
    assert task.verdict.startswith("B is better by 7.0000 (")
    assert (task.figures[0].better, task.figures[0].worse) == (12, 0)


def test_what_is_too_small_to_be_seen_is_said(tmp_path: Path) -> None:
    a, b = [1, 0, 1, 0] * 25, [1, 0, 1, 0] * 24 + [1, 1, 0, 1]
    task = both(tmp_path, samples(a), samples(b))
    paired = task.figures[0].paired
    assert paired is not None
    assert paired.detectable is not None
    assert f"smaller than {paired.detectable:.2f} would not be seen with these 100 samples" in task.verdict
    assert task.verdict.startswith("no difference can be told")


def test_questions_of_one_picture_are_not_independent(tmp_path: Path) -> None:
    a, b = [0] * 10 + [1] * 30, [1] * 10 + [1] * 30
    alone, together = both(tmp_path, samples(a), samples(b)), both(tmp_path, samples(a, 10), samples(b, 10))
    assert alone.verdict.startswith("B is better by 25.00")
    assert together.verdict.startswith("no difference can be told")
    assert together.figures[0].paired is not None
    assert (together.figures[0].paired.n, together.figures[0].paired.clusters) == (40, 4)
    assert together.figures[0].paired.p == 1


def test_samples_without_a_cluster_are_their_own(tmp_path: Path) -> None:
    a, b = samples([0] * 10, cluster=""), samples([1] * 10, cluster="")
    paired = both(tmp_path, a, b).figures[0].paired
    assert paired is not None
    assert (paired.clusters, paired.p) == (10, 2 / 2**10)
    assert (paired.difference.value, paired.difference.low) == (100, None), "nothing varies"


def test_runs_that_score_alike(tmp_path: Path) -> None:
    task = both(tmp_path, samples([1, 0, 1]), samples([1, 0, 1], output="another"))
    assert task.verdict == "no difference: accuracy 66.67 and 66.67, the same on each of 3 samples"
    assert (task.outputs_changed, task.flips, task.p_of_all) == (3, (), 1)


def test_one_sample_tells_nothing(tmp_path: Path) -> None:
    task = both(tmp_path, samples([0]), samples([1]))
    assert task.verdict == "no difference can be told from 1 sample of one picture (accuracy 0.00 and 100.00)"
    assert task.figures[0].paired is not None
    assert (task.figures[0].paired.p, task.figures[0].paired.difference.low) == (1, None)


def test_a_main_figure_that_is_no_mean_is_not_tested(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"pets": samples([0, 1])}, main="bleu")
    task = compare(a, a).tasks[0]
    assert task.verdict == "bleu 0.2500 and 0.2500; not paired (no mean of samples), so no test"
    assert task.p_of_all is None


def test_missing_samples_are_counted_and_left_out(tmp_path: Path) -> None:
    task = both(tmp_path, samples([1, 0, 0, 1, 1])[:4], samples([0, 1, 0, 1, 0])[1:])
    assert (task.samples, task.only_a, task.only_b) == (3, 1, 1)
    assert task.warnings == ("1 samples only in A, 1 only in B: compared on the 3 in both",)
    assert (task.figures[0].a, task.figures[0].b) == pytest.approx((100 / 3, 200 / 3))


def test_samples_without_a_score_are_counted(tmp_path: Path) -> None:
    task = both(tmp_path, samples([1, None, 0, 1]), samples([None, 0, 1, 1]))
    figure = task.figures[0]
    assert (figure.unscored, figure.better, figure.worse, figure.same) == (2, 1, 0, 1)


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


def test_the_most_changed_samples_come_first(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"pets": samples([0.5, 0.5, 0.5, 0.5])})
    second = write_run(tmp_path / "b", {"pets": samples([0.6, 0.5, 0.0, 1.0])})
    (task,) = compare(first, second, flips=2).tasks
    assert [(flip.id, flip.change) for flip in task.flips] == [("q2", -0.5), ("q3", 0.5)]
    flip = task.flips[0]
    assert (flip.inputs, flip.a, flip.b, flip.references) == ({"image": "2.jpg"}, "yes", "no", ("yes",))
    assert compare(first, second, flips=0).tasks[0].flips == ()


def test_several_tasks_are_counted_in(tmp_path: Path) -> None:
    """Six changes for the better of six are p = 0.03 alone, not of three tasks."""
    a, b = samples([0] * 6 + [1] * 20), samples([1] * 26)
    same = samples([0, 1] * 10)
    alone = compare(write_run(tmp_path / "a", {"pets": a}), write_run(tmp_path / "b", {"pets": b}))
    assert alone.tasks[0].verdict.startswith("B is better")
    first = write_run(tmp_path / "a3", {"pets": a, "cars": same, "cats@2": same})
    second = write_run(tmp_path / "b3", {"cars": same, "pets": b, "cats@2": same})
    found = compare(first, second)
    assert [task.task for task in found.tasks] == ["pets", "cars", "cats@2"]
    assert found.tasks[0].p_of_all == pytest.approx(3 * 2 / 2**6)
    assert found.tasks[0].verdict.startswith("no difference can be told")
    assert "p = 0.031 (0.094 among 3 tasks)" in found.tasks[0].verdict


def test_tasks_of_one_run_only_and_unfinished_ones(tmp_path: Path) -> None:
    rows = samples([0, 1])
    first = write_run(tmp_path / "a", {"pets": rows, "cars": rows, "cut": rows})
    (first / "cut" / "results.json").unlink()
    found = compare(first, write_run(tmp_path / "b", {"cats": rows, "pets": rows}))
    assert ([task.task for task in found.tasks], found.only_a, found.only_b) == (["pets"], ("cars",), ("cats",))
    assert (found.unfinished_a, found.unfinished_b) == (("cut",), ())


def test_order_does_not_matter(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    a, b = samples(random.random(60).tolist(), 3), samples(random.random(60).tolist(), 3)
    first = write_run(tmp_path / "a", {"pets": a})
    one = compare(first, write_run(tmp_path / "b", {"pets": b}))
    assert one == compare(first, write_run(tmp_path / "c", {"pets": [b[i] for i in random.permutation(60)]}))
    assert isinstance(one, Comparison)


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

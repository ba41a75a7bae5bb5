"""Two runs: which is better and how sure that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compared_runs import both, samples, write_run

from vlm.evaluation.comparing.compare import compare
from vlm.evaluation.comparing.comparison import Comparison
from vlm.evaluation.results import Figure
from vlm.metrics.significance import mcnemar


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


def test_a_difference_is_no_larger_than_the_figure_allows(tmp_path: Path) -> None:
    a, b = samples([0.0, 0.1, 0.0]), samples([1.0, 0.3, 1.0])
    free = both(tmp_path, a, b).figures[0].paired
    assert free is not None
    assert free.difference.high is not None
    assert free.difference.high > 100
    figures = {"accuracy": Figure(value=50, n=3, sample_score="right", scale=100, bounds=(0, 100))}
    first, second = (write_run(tmp_path / n, {"pets": rows}, figures=figures) for n, rows in (("a", a), ("b", b)))
    paired = compare(first, second).tasks[0].figures[0].paired
    assert paired is not None
    assert (paired.difference.value, paired.difference.high) == (free.difference.value, 100)


def test_more_than_a_figure_can_differ_by_is_not_called_detectable(tmp_path: Path) -> None:
    figures = {"accuracy": Figure(value=50, n=8, sample_score="right", scale=100, bounds=(0, 100))}
    a, b = samples([1, 1, 1, 1, 0, 0, 1, 0], each=4), samples([0, 0, 0, 0, 0, 0, 1, 0], each=4)
    first, second = (write_run(tmp_path / n, {"pets": rows}, figures=figures) for n, rows in (("a", a), ("b", b)))
    (task,) = compare(first, second).tasks
    assert task.figures[0].paired is not None
    assert task.figures[0].paired.detectable is None
    assert task.verdict.startswith("no difference can be told: 8 samples of 2 pictures are too few for any (B - A is")


def test_of_replies_that_cannot_be_read_fewer_are_better(tmp_path: Path) -> None:
    figures = {"unreadable": Figure(value=50, n=12, sample_score="right", scale=100)}
    a = write_run(tmp_path / "a", {"pets": samples([1.0] * 12)}, figures=figures, main="unreadable")
    b = write_run(tmp_path / "b", {"pets": samples([0.0] * 11 + [1.0])}, figures=figures, main="unreadable")
    assert compare(a, b).tasks[0].verdict.startswith("B is better by 91.67 (")


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


def test_order_does_not_matter(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    a, b = samples(random.random(60).tolist(), 3), samples(random.random(60).tolist(), 3)
    first = write_run(tmp_path / "a", {"pets": a})
    one = compare(first, write_run(tmp_path / "b", {"pets": b}))
    assert one == compare(first, write_run(tmp_path / "c", {"pets": [b[i] for i in random.permutation(60)]}))
    assert isinstance(one, Comparison)

"""Which samples a report shows, in which order, and how much of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_page import page_of
from report_runs import questions, vqa, write_run

from vlm.evaluation.direction import direction
from vlm.evaluation.report.samples import choose, ordered
from vlm.evaluation.results import Sample


def test_the_worst_and_the_best_come_first() -> None:
    samples = [Sample(id=str(i), inputs={}, scores={"rank": float(i), "confidence": 0.5}) for i in range(100)]
    assert ordered(samples, "rank", best=True)[:3] == [0, 1, 2]
    assert ordered(samples, "rank", best=False)[:3] == [99, 98, 97]
    chosen = choose(samples, "rank", 20)
    assert {*range(10), *range(90, 100)} <= set(chosen)
    assert 20 < len(chosen) <= 25
    assert choose(samples, "rank", 20) == chosen
    assert choose(samples, "rank", 100) == list(range(100))


def test_a_sure_mistake_comes_before_an_unsure_one() -> None:
    samples = [Sample(id=str(i), inputs={}, scores={"accuracy": 0.0, "confidence": i / 10}) for i in range(5)]
    assert ordered(samples, "accuracy", best=False) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("score", "way"),
    [("accuracy", "up"), ("text_to_image_R@1", "up"), ("rank", "down"), ("t2i_rank", "down"), ("confidence", "none")],
)
def test_which_way_is_better(score: str, way: str) -> None:
    assert direction(score) == way


def test_one_sample(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 1, 1)
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    (row,) = page.rows()
    assert row["answer"] == "0"
    assert row["verdict"] == 2
    assert row["references"] == [["0", 1]]
    assert "All 1, with pictures." in page.text


def test_three_thousand_samples_stay_small(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 3000, 300, hostile=False)
    run = write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)])
    page = page_of(run, top=40)
    assert len(page.rows()) == 3000
    assert sum("pictures" in row for row in page.rows()) <= 50
    assert "of 3,000 are shown with pictures" in page.text
    assert (run / "report.html").stat().st_size < 1_500_000


def test_beyond_the_bound_the_rest_of_the_text_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.evaluation.report.page.TEXT_BYTES", 60_000)
    samples = questions(tmp_path / "data", 1000, 3, hostile=False)
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]), top=20)
    kept = len(page.rows())
    assert 200 < kept < 600
    assert len(page.scripts["rows-1"]) < 61_000
    assert f"{kept} of 1,000 samples are on this page" in page.text


def test_no_score_at_all_and_scores_that_are_none(tmp_path: Path) -> None:
    samples = [Sample(id=str(i), inputs={}, scores={"accuracy": None}) for i in range(300)]
    page = page_of(write_run(tmp_path / "run", tmp_path, [(vqa("colours", samples), samples)]), top=10)
    assert len(page.rows()) == 300


def test_half_a_surrogate_pair_and_long_text(tmp_path: Path) -> None:
    samples = [Sample(id="a", inputs={}, output="x" * 5000, scores={})]
    run = write_run(tmp_path / "run", tmp_path, [(vqa("colours", samples), samples)])
    path = run / "colours/samples.jsonl"
    path.write_text(path.read_text().replace('"x' + "x" * 10, '"\\ud800' + "x" * 10))
    assert page_of(run).rows()[0]["output"].endswith("… (3,000 more characters)")

"""A report's plots: which there are, and that they say what the figures say."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import questions, searches, vqa

from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.report.plots import nice_ticks, plots
from vlm.evaluation.results import Figure, Sample


def test_plots_follow_from_what_samples_have(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 40, 2)
    assert [plot.title for plot in plots(vqa("colours", samples), samples)] == ["Calibration"]
    bare = [s.model_copy(update={"scores": {"accuracy": s.scores["accuracy"]}}) for s in samples]
    assert plots(vqa("colours", bare), bare) == []
    graded = [s.model_copy(update={"scores": {"accuracy": (0.0, 0.3, 1.0)[i % 3]}}) for i, s in enumerate(samples)]
    assert [plot.title for plot in plots(vqa("colours", graded), graded)] == ["accuracy of each sample"]
    card = BenchmarkCard(name="c", about="", dataset="d", split="test", kind="caption")
    said = [s.model_copy(update={"scores": {"CIDEr": i / 7}}) for i, s in enumerate(samples)]
    figures = {"CIDEr": Figure(value=1, n=40, sample_score="CIDEr")}
    captions = vqa("c", said, card=card, main="CIDEr", figures=figures)
    assert [plot.title for plot in plots(captions, said)] == ["CIDEr of each sample", "Caption length"]


def test_calibration_is_exact_on_a_known_case() -> None:
    scores = [(0.95, 1.0)] * 9 + [(0.95, 0.0)] + [(0.25, 0.0)] * 10
    samples = [Sample(id=str(i), inputs={}, scores={"confidence": c, "accuracy": a}) for i, (c, a) in enumerate(scores)]
    (plot,) = plots(vqa("colours", samples), samples)
    # Two bins of ten: |0.95 - 0.9| and |0.25 - 0|, alike in weight.
    assert "expected calibration error 15.0 %" in plot.note
    assert "60.0 % sure and 45.0 % right" in plot.note


def test_recall_curve_counts_ranks_as_the_figures_do() -> None:
    samples = [Sample(id=str(i), inputs={}, scores={"rank": r}) for i, r in enumerate((1.0, 1.5, 2.0, 12.0))]
    result, _ = searches(Path("/nonexistent"), 0)
    result = result.model_copy(update={"figures": {"text_to_image_R@1": Figure(value=50, n=4, scale=100)}})
    (plot,) = plots(result, samples)
    assert "R@1 50.0 %, R@5 75.0 %, R@10 75.0 %" in plot.note


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0), (0, 0.0031), (-3, 17), (0, 12345), (5, 5)])
def test_ticks_cover_the_range(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8

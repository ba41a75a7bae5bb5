"""A report's plots: which there are, and that they say what the figures say."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

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


def graded(scores: list[float]) -> list[Sample]:
    return [Sample(id=str(i), inputs={}, scores={"accuracy": score}) for i, score in enumerate(scores)]


def test_bars_are_as_high_as_the_samples_are_many() -> None:
    samples = graded([0.0] * 10 + [0.5] * 5 + [1.0] * 20)
    (plot,) = plots(vqa("colours", samples), samples)
    bars = ElementTree.fromstring(plot.svg).findall("rect")
    counts = [int(re.findall(r": (\d+) samples", bar.findtext("title") or "")[0]) for bar in bars]
    assert [count for count in counts if count] == [10, 5, 20]
    a_sample = float(bars[0].attrib["height"]) / 10
    assert [float(bar.attrib["height"]) for bar in bars] == pytest.approx([a_sample * n for n in counts], abs=0.1)
    assert all(float(bar.attrib["y"]) + float(bar.attrib["height"]) == pytest.approx(210, abs=0.1) for bar in bars)


def test_a_drawing_is_the_same_each_time_and_has_no_colour_of_its_own() -> None:
    samples = graded([i % 7 / 6 for i in range(70)])
    (plot,), (again,) = (plots(vqa("colours", samples), samples) for _ in range(2))
    assert plot.svg == again.svg
    root = ElementTree.fromstring(plot.svg)
    assert root.attrib["aria-label"] == f"Histogram of accuracy. {plot.note}"
    assert not {"style", "fill", "stroke", "id"} & {name for element in root.iter() for name in element.attrib}
    sheet = (Path(plots.__code__.co_filename).parent / "page.css").read_text()
    classes = {name for element in root.iter() for name in element.attrib.get("class", "").split()}
    assert classes
    assert all(f".{name} {{" in sheet for name in classes)


def test_names_that_look_like_markup_are_text() -> None:
    samples = [s.model_copy(update={"scores": {"<b>&": s.scores["accuracy"]}}) for s in graded([0.1, 0.5, 0.9])]
    figures = {"<b>&": Figure(value=1, n=3, sample_score="<b>&")}
    (plot,) = plots(vqa("colours", samples, main="<b>&", figures=figures), samples)
    assert "<b>&" in [text.text for text in ElementTree.fromstring(plot.svg).findall("text")]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0), (0, 0.0031), (-3, 17), (0, 12345), (5, 5)])
def test_ticks_cover_the_range(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8

"""The reports of a run made by hand: what they say and what they escape."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_page import Page, page_of
from report_runs import HOSTILE, questions, vqa, write_run

from vlm.errors import BadInput
from vlm.evaluation.report.tables import shown, terminal_rows
from vlm.evaluation.report.write import write_reports
from vlm.evaluation.results import Figure


def test_three_reports_and_nothing_else(run: Path) -> None:
    before = {p.name for p in run.iterdir()}
    written = write_reports(run)
    assert [p.name for p in written] == ["report.md", "report.json", "report.html"]
    assert {p.name for p in run.iterdir()} - before == {p.name for p in written}


def test_every_report_has_the_figures_with_intervals(run: Path) -> None:
    markdown, data, html = (path.read_text(encoding="utf-8") for path in write_reports(run))
    for text in (markdown, Page(html).text):
        for said in ("20.6", "[18.2, 23.1]", "40.0", "31.5", "Another", "METEOR not available: no Java", "max_tokens"):
            assert said in text, said
    assert "| accuracy | 20.6 [18.2, 23.1] | 30 | soft |" in markdown
    assert "0123456789abcdef" * 4 in markdown
    assert "0123456789abcdef" * 4 in html
    figures = json.loads(data)["results"][0]["figures"]["accuracy"]
    assert (figures["low"], figures["high"]) == (18.2, 23.1)
    assert '<a href="https://example.org/paper"' in html


def test_terminal_rows_have_a_head_and_the_main_figure_first(run: Path) -> None:
    columns, *rows = terminal_rows([vqa("colours", [])])
    assert columns == ["task", "metric", "value [95 %]", "n", "published"]
    assert rows[0] == ["colours", "accuracy", "20.6 [18.2, 23.1]", "0", "31.5 (Another)"]
    assert rows[1][:2] == ["", "length"]


def test_scores_published_times_100_stand_on_the_figures_scale(tmp_path: Path) -> None:
    result = vqa("colours", [], main="CIDEr", figures={"CIDEr": Figure(value=0.4, low=0.3, high=0.5, n=9)})
    other = result.card.published[0].model_copy(update={"metric": "CIDEr", "value": 133.5, "note": "times 100; tuned"})
    result = result.model_copy(update={"card": result.card.model_copy(update={"published": (other,)})})
    assert terminal_rows([result])[1][-1] == "1.335 (Another)"
    page = page_of(write_run(tmp_path / "run", tmp_path, [(result, [])]))
    marks = [attrs for tag, attrs in page.elements if attrs.get("class") == "other"]
    assert marks[0]["title"] == "Another: 1.335"
    assert "133.5" in page.text


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (Figure(value=20.61, low=18.2, high=23.14, n=5, scale=100), "20.6 [18.2, 23.1]"),
        (Figure(value=0.41234, low=0.4, high=0.42, n=5), "0.412 [0.400, 0.420]"),
        (Figure(value=743, n=1000), "743"),
        (Figure(value=4, low=4, high=6, n=5000), "4 [4, 6]"),
        (Figure(value=104.25, low=99, high=110, n=5), "104.2 [99.0, 110.0]"),
        (Figure(value=float("nan"), n=0), "-"),
    ],
)
def test_numbers_read_well(figure: Figure, said: str) -> None:
    assert shown(figure) == said


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(run: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_reports(run)]
    assert [path.read_bytes() for path in write_reports(run)] == first
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    shutil.copytree(run, tmp_path / "moved")
    assert [path.read_bytes() for path in write_reports(tmp_path / "moved", tmp_path / "elsewhere")] == first
    assert str(tmp_path).encode() not in b"".join(first)


def test_nothing_outside_is_asked_for(run: Path) -> None:
    page = page_of(run)
    sources = [value for _, attrs in page.elements for key, value in attrs.items() if key in ("src", "srcset", "data")]
    assert not sources
    assert [attrs["href"] for tag, attrs in page.elements if tag == "link"] == ["data:,"]
    policy = next(attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 30, 6)
    result = vqa(
        "colours", samples, model=HOSTILE, prompt=HOSTILE, notes=(HOSTILE,), settings={HOSTILE: HOSTILE},
        categories={HOSTILE: vqa("c", samples).categories["red"]},
    )  # fmt: skip
    run = write_run(tmp_path / "run", tmp_path / "data", [(result, samples)])
    markdown, _, html = (path.read_text(encoding="utf-8") for path in write_reports(run))
    page = Page(html)
    assert html.count("<script") == html.count("</script") == 3
    assert "alert('x')" in page.text
    assert any(row["output"] == f"It is 4. {HOSTILE}" for row in page.rows())
    assert "<script>" not in markdown


def test_a_source_that_is_no_web_address_is_no_link(tmp_path: Path) -> None:
    result = vqa("colours", [])
    published = result.card.published[0].model_copy(update={"source": "javascript:alert(1)"})
    result = result.model_copy(update={"card": result.card.model_copy(update={"published": (published,)})})
    page = page_of(write_run(tmp_path / "run", tmp_path, [(result, [])]))
    assert not any("javascript" in str(attrs.get("href")) for _, attrs in page.elements)


def test_an_empty_task_and_a_run_without_tasks(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", tmp_path, [(vqa("colours", []), [])]))
    assert "There are none." in page.text
    assert page.rows() == []
    assert "No benchmark of this run is finished." in page_of(write_run(tmp_path / "none", tmp_path, [])).text


def test_an_unfinished_task_is_named(run: Path, tmp_path: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"tasks": ["colours", "shapes"]}))
    assert "Not finished: shapes" in page_of(run).text


def test_bars_of_one_metric_share_their_axis(tmp_path: Path) -> None:
    """A longer bar is a larger value, however wide the intervals."""
    figures = [Figure(value=0.7, low=0, high=1.1, n=6), Figure(value=0.9, low=0, high=3, n=6)]
    tasks = [(vqa(f"c{i}", [], main="CIDEr", figures={"CIDEr": f}), []) for i, f in enumerate(figures)]
    page = page_of(write_run(tmp_path / "run", tmp_path, tasks))
    styles = [str(attrs["style"]) for tag, attrs in page.elements if tag == "i" and attrs.get("class") == "value"]
    assert float(styles[0][6:-1]) / float(styles[1][6:-1]) == pytest.approx(0.7 / 0.9, abs=1e-3)


def test_the_wording_of_the_prompt(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 4, 1)
    first = vqa("colours", samples)
    better = first.figures["accuracy"].model_copy(update={"value": 25.1})
    second = vqa("colours@2", samples, prompt_number=2, prompt="{question}?", figures={"accuracy": better})
    run = write_run(tmp_path / "run", tmp_path / "data", [(first, samples), (second, samples)])
    markdown, data, html = (path.read_text(encoding="utf-8") for path in write_reports(run))
    assert "moves by 4.5 over 2 prompts" in markdown
    assert "accuracy moves by 4.5 over 2 prompts" in Page(html).text
    assert json.loads(data)["prompt_sensitivity"][0]["spread"] == pytest.approx(4.5)


def test_bad_input_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"run\.json: no such file"):
        write_reports(tmp_path)
    with pytest.raises(BadInput, match="expected 0 or more"):
        write_reports(run, top=-1)
    (run / "colours/samples.jsonl").write_text("{broken\n")
    with pytest.raises(BadInput, match=re.escape("samples.jsonl:1: not JSON")):
        write_reports(run)
    samples = questions(tmp_path / "data", 1, 1)
    wrong = write_run(tmp_path / "wrong", tmp_path, [(vqa("colours", samples, main="exact"), samples)])
    with pytest.raises(BadInput, match=r"expected one of the figures \(length, accuracy\), got 'exact'"):
        write_reports(wrong)
    assert not list(wrong.glob("report.*"))

"""The reports of a run made by hand: what they say, what they escape, what they leave out, and how large they are."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_runs import HOSTILE, picture, questions, searches, vqa, write_run

from vlm.errors import BadInput
from vlm.evaluation.card import BenchmarkCard
from vlm.evaluation.direction import direction
from vlm.evaluation.report.plots import nice_ticks, plots
from vlm.evaluation.report.samples import choose, ordered
from vlm.evaluation.report.tables import shown, terminal_rows
from vlm.evaluation.report.write import write_reports
from vlm.evaluation.results import Figure, Sample


class Page(HTMLParser):
    """A page's elements, its scripts' content and the text outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or "code"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] += data

    def rows(self, number: int = 1) -> list[dict[str, Any]]:
        return json.loads(self.scripts[f"rows-{number}"])["rows"]

    def pictures(self) -> list[str]:
        return json.loads(self.scripts["pictures"])


def page_of(run: Path, **options: Any) -> Page:
    return Page(next(p for p in write_reports(run, **options) if p.suffix == ".html").read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    samples = questions(tmp_path / "data", 30, 6)
    return write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)])


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


def test_a_picture_is_embedded_once(run: Path) -> None:
    page = page_of(run)
    assert len(page.pictures()) == 6
    assert len(set(page.pictures())) == 6
    assert {n for row in page.rows() for n in row["pictures"]} == set(range(6))


def test_the_same_pixels_under_two_names_are_embedded_once(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 4, 2)
    shutil.copy(tmp_path / "data/made/0.png", tmp_path / "data/made/1.png")
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    assert len(page.pictures()) == 1


def test_thumbnails_are_small_jpegs(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 2, 1)
    picture(tmp_path / "data/made/0.png", 5, (1600, 900))
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    (uri,) = page.pictures()
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 20_000


def test_missing_and_broken_pictures_are_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "data/made/3.png").unlink()
    (tmp_path / "data/made/4.png").write_bytes(b"no picture")
    page = page_of(run)
    assert "2 pictures could not be shown, the first: made/" in page.text
    by_id = {row["id"]: row for row in page.rows()}
    assert by_id["q3"]["pictures"] == [None]
    assert by_id["q3"]["name"] == "3.png"
    assert len(page.pictures()) == 4
    assert str(tmp_path) not in page.text


def test_an_empty_task_and_a_run_without_tasks(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", tmp_path, [(vqa("colours", []), [])]))
    assert "There are none." in page.text
    assert page.rows() == []
    assert "No benchmark of this run is finished." in page_of(write_run(tmp_path / "none", tmp_path, [])).text


def test_one_sample(tmp_path: Path) -> None:
    samples = questions(tmp_path / "data", 1, 1)
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    (row,) = page.rows()
    assert row["answer"] == "0"
    assert row["verdict"] == 2
    assert row["references"] == [["0", 1]]
    assert "All 1, with pictures." in page.text


def test_an_unfinished_task_is_named(run: Path, tmp_path: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"tasks": ["colours", "shapes"]}))
    assert "Not finished: shapes" in page_of(run).text


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


def test_beyond_the_bound_pictures_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.evaluation.report.page.PICTURE_BYTES", 6_000)
    samples = questions(tmp_path / "data", 30, 30)
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    assert 0 < len(page.pictures()) < 10
    assert "Some pictures are left out" in page.text


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


def test_retrieval_shows_candidates_and_the_right_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", [searches(tmp_path / "data", 9)])
    page = page_of(run)
    rows = {(row["category"], row["id"]): row for row in page.rows()}
    first, third, missed = (rows["text_to_image", f"{i}#0"] for i in (0, 1, 2))
    assert [c.get("right", False) for c in first["candidates"]] == [True, False, False, False, False]
    assert [c.get("right", False) for c in third["candidates"]] == [False, False, True, False, False]
    assert all("picture" in c for c in first["candidates"])
    assert first["verdict"] == 2
    assert third["verdict"] == missed["verdict"] == 0
    assert missed["targets"][0]["text"] == "2.png"
    assert "pictures" not in first
    back = rows["image_to_text", "0"]
    assert len(back["pictures"]) == 1
    assert back["candidates"][0] == {"text": "picture number 0", "right": True, "score": 0.5}
    assert len(page.pictures()) == 9
    assert "Recall at k" in page.text


def test_candidates_named_by_a_clip_get_its_first_frame(tmp_path: Path) -> None:
    result, samples = searches(tmp_path / "data", 3)
    frames = {f"made/{i}.png": {"frames": [f"made/{i}.png", f"made/{(i + 1) % 3}.png"]} for i in range(3)}
    clips = [
        s.model_copy(update={
            "inputs": frames[s.cluster] if s.inputs else {},
            "cluster": f"clip{s.cluster[5]}",
            "output": [{**c, "item": f"clip{c['item'][5]}"} for c in s.output] if s.prompt else s.output,
            "references": (f"clip{s.cluster[5]}",) if s.prompt else s.references,
        })
        for s in samples
    ]  # fmt: skip
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(result, clips)]))
    rows = {row["id"]: row for row in page.rows()}
    assert all("picture" in c for c in rows["0#0"]["candidates"])
    assert len(rows["0"]["pictures"]) == 2


def test_a_video_shows_its_first_frame_or_its_name(tmp_path: Path) -> None:
    clip = Path(__file__).resolve().parents[2] / "data/samples/city_at_night.mp4"
    shutil.copy(clip, tmp_path / "night.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    samples = [
        Sample(id=name, inputs={"video": f"{name}.mp4"}, output="a city", prediction="a city", scores={"accuracy": 1.0})
        for name in ("night", "broken")
    ]
    page = page_of(write_run(tmp_path / "run", tmp_path, [(vqa("clips", samples), samples)]))
    night, broken = page.rows()
    assert night["pictures"] == [0]
    assert broken["pictures"] == [None]
    assert broken["name"] == "broken.mp4"
    assert "1 pictures could not be shown, the first: broken.mp4" in page.text


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


def test_pictures_turned_by_exif_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "data/made").mkdir(parents=True)
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "data/made/0.jpg", exif=exif)
    samples = [Sample(id="a", inputs={"image": "made/0.jpg"}, scores={"accuracy": 1.0})]
    page = page_of(write_run(tmp_path / "run", tmp_path / "data", [(vqa("colours", samples), samples)]))
    data = base64.b64decode(page.pictures()[0].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (40, 80)

"""`vlm eval --predictions FILE`: what any system said becomes a run like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from squares import COLORS, FakeModel, write_benchmark

from vlm.cli import main
from vlm.errors import BadInput
from vlm.evaluation.predictions import Predictions
from vlm.evaluation.results import TaskResult, read_run, read_samples
from vlm.evaluation.run import Options, evaluate
from vlm.metrics.java import NotAvailable

ROWS = [
    {"id": f"q{i}", "color": c, "question": "What color?", "answers": [c], "captions": [f"a {c} wall", f"{c} {i}"],
     "options": list(COLORS)}
    for i, c in enumerate([*COLORS, "red"])
]  # fmt: skip
LETTER = dict(zip(COLORS, "ABC", strict=True))


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("meteor", "spice"):
        monkeypatch.setattr(f"vlm.evaluation.task_types.caption.{name}", lambda *_: NotAvailable("not in this test"))


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(folder: Path, given: list[Any], limit: int | None = None, **card: Any) -> TaskResult:
    path = write_benchmark(folder / "data", [dict(row) for row in card.pop("rows", ROWS)], **card)
    said = Predictions(lines(folder / "system.jsonl", *given))
    [result] = evaluate(said, [path], Options(str(folder / "data"), output=folder / "run", limit=limit, resume=True))
    return result


def test_answers_have_the_figures_of_a_model_that_says_the_same(tmp_path: Path) -> None:
    rows = [{"id": row["id"], "answer": row["color"] if i else "blue"} for i, row in enumerate(ROWS)]
    result = scored(tmp_path, rows, kind="vqa")
    model = FakeModel(lambda color, question: color)
    replies = iter(row["answer"] for row in rows)
    model.rule = lambda *_: next(replies)
    [direct] = evaluate(model, [str(tmp_path / "data/benchmark.yaml")], Options(str(tmp_path / "data")))  # type: ignore[arg-type]
    assert result.figures == direct.figures
    assert (result.model, result.figures["accuracy"].value) == ("system", 75)
    assert result.figures["accuracy"].low is not None
    assert result.warnings == ()


def test_captions(tmp_path: Path) -> None:
    result = scored(tmp_path, [{"id": row["id"], "caption": row["captions"][0]} for row in ROWS], kind="caption")
    assert result.figures["BLEU-1"].value == 1


def test_choices_and_their_rotations(tmp_path: Path) -> None:
    rows = [{**row, "answers": [LETTER[row["color"]]]} for row in ROWS]
    said = [{"id": row["id"], "answer": f"({LETTER[row['color']]})"} for row in ROWS]
    assert scored(tmp_path / "once", said, rows=rows, kind="choice").figures["accuracy"].value == 100
    turned = []
    for row in ROWS:
        place = list(COLORS).index(row["color"])
        turned.append({"id": row["id"], "answer": ["ABC"[(place - shift) % 3] for shift in range(3)]})
    turned[0]["answer"] = turned[0]["answer"][::-1]
    result = scored(tmp_path / "turned", turned, rows=rows, kind="choice", circular=True)
    assert result.figures["accuracy"].value == 75
    with pytest.raises(BadInput, match="id 'q0': 1 answers; expected 3, as it is asked so often"):
        scored(tmp_path / "short", said, rows=rows, kind="choice", circular=True)


def test_rankings_of_both_ways(tmp_path: Path) -> None:
    pictures = [row["id"] for row in ROWS]
    texts = [f"{name}#{n}" for name in pictures for n in (0, 1)]
    forward: list[dict[str, Any]] = []
    for text in texts:
        others = [p for p in pictures if p != text[:2]]
        best = [text[:2], *others] if text[:2] != "q1" else [others[0], text[:2], *others[1:]]
        forward.append({"id": text, "ranking": best})
    back = [{"id": p, "ranking": [f"{p}#1", *(t for t in texts if t != f"{p}#1")]} for p in pictures]
    result = scored(tmp_path, [*forward, *back], kind="retrieval")
    assert result.figures["text_to_image_R@1"].value == 75
    assert result.figures["text_to_image_R@5"].value == 100
    assert result.figures["text_to_image_mean_rank"].value == pytest.approx(1.25)
    assert result.figures["image_to_text_R@1"].value == 100
    one_way = scored(tmp_path / "one", forward, kind="retrieval")
    assert one_way.figures["text_to_image_R@1"] == result.figures["text_to_image_R@1"]
    assert "image_to_text_R@1" not in one_way.figures
    cut = scored(tmp_path / "cut", [{**row, "ranking": row["ranking"][:1]} for row in forward], kind="retrieval")
    assert cut.figures["text_to_image_R@10"].value == 75
    assert "text_to_image_mean_rank" not in cut.figures, "the rank of what is not in a ranking is not known"
    with pytest.raises(BadInput, match="id 'q0#0': ranks 'zebra'; expected ids like 'q0'"):
        scored(tmp_path / "odd", [{"id": "q0#0", "ranking": ["zebra"]}], kind="retrieval")


def test_classes(tmp_path: Path) -> None:
    rows = [{"id": row["id"], "answer": row["color"] if i else "blue"} for i, row in enumerate(ROWS)]
    result = scored(tmp_path, rows, kind="classification")
    assert result.figures["accuracy"].value == 75
    assert result.figures["mean_class_recall"].value == pytest.approx(100 * (0.5 + 1 + 1) / 3, abs=1e-4)
    with pytest.raises(BadInput, match=r"unknown class in .*'q0':.*'redd'; did you mean 'red'"):
        scored(tmp_path / "odd", [{"id": "q0", "answer": "redd"}], kind="classification")


def test_missing_and_unknown_ids_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = write_benchmark(tmp_path / "data", [dict(row) for row in ROWS], kind="vqa")
    path = lines(tmp_path / "s.jsonl", {"id": "q0", "answer": "red"}, {"id": "q1", "answer": "blue"},
                 {"id": "zebra", "answer": "red"})  # fmt: skip
    arguments = ["eval", "--predictions", str(path), "--tasks", card, "--data", str(tmp_path / "data"), "--json"]
    assert main([*arguments, "--output", str(tmp_path / "run"), "--model-name", "mine"]) == 0
    said = capsys.readouterr()
    [result] = json.loads(said.out)["results"]
    told = ["2 ids (q2, q3) without a prediction, counted as empty answers",
            "1 ids (zebra) of the predictions are no example's, left out"]  # fmt: skip
    assert [line for line in said.err.splitlines() if "squares-test" in line] == [
        f"vlm: squares-test: {t}" for t in told
    ]
    assert (result["accuracy"], result["model"], result["notes"][-2:]) == (50, "mine", told)
    assert (tmp_path / "run/report.html").is_file()
    assert [sample.output for sample in read_samples(tmp_path / "run/squares-test")] == ["red", "blue", "", ""]


def test_what_is_beyond_the_limit_is_not_unknown(tmp_path: Path) -> None:
    rows = [{"id": row["id"], "answer": row["color"]} for row in ROWS]
    result = scored(tmp_path, rows, limit=2, kind="vqa")
    assert (result.warnings, result.figures["accuracy"].n) == ((), 2)


def test_a_folder_has_a_file_for_each_benchmark(tmp_path: Path) -> None:
    (tmp_path / "said").mkdir()
    cards = []
    for name in ("first", "second"):
        path = Path(write_benchmark(tmp_path / "data", [dict(row) for row in ROWS], kind="vqa", name=name))
        cards.append(str(path.rename(path.with_name(f"{name}.yaml"))))
        lines(tmp_path / f"said/{name}.jsonl", *({"id": row["id"], "answer": row["color"]} for row in ROWS))
    options = Options(str(tmp_path / "data"), output=tmp_path / "run")
    assert len(evaluate(Predictions(tmp_path / "said"), cards, options)) == 2
    assert list(read_run(tmp_path / "run")[1]) == ["first", "second"]
    with pytest.raises(BadInput, match="one file for 2 benchmarks"):
        evaluate(Predictions(tmp_path / "said/first.jsonl"), cards, options)
    (tmp_path / "said/second.jsonl").unlink()
    with pytest.raises(BadInput, match=r"second\.jsonl: no such file"):
        evaluate(Predictions(tmp_path / "said"), cards, options)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"answer": "red"}, "key id: expected the example's id, got None"),
        ({"id": "q0"}, "expected one of answer, caption, ranking, got none"),
        ({"id": "q0", "answer": "a", "caption": "b"}, "got answer, caption"),
        ({"id": "q0", "answer": {"text": "red"}}, "key answer: expected a text"),
        ({"id": "q0", "ranking": ["a", "a"]}, "there twice"),
        ([1], "expected a JSON object"),
        ({"id": "other", "answer": "red"}, "none of 1 ids is an example's, such as 'other'; expected ids like 'q0'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        scored(tmp_path, [line], kind="vqa")


def test_an_id_that_is_there_twice_and_a_kind_that_needs_the_model(tmp_path: Path) -> None:
    row = {"id": "q0", "answer": "red"}
    with pytest.raises(BadInput, match=r"system\.jsonl:2: id 'q0' is there twice"):
        scored(tmp_path, [row, row], kind="vqa")
    with pytest.raises(BadInput, match=r"cannot be scored on squares-test \(kind rerank\)"):
        scored(tmp_path / "b", [row], kind="rerank")

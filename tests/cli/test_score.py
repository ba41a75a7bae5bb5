"""`vlm score`: the exact shapes of its JSON, and the reference's figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored_files import ANNOTATIONS, HYPOTHESES, PREDICTIONS, REFERENCES


def test_captions(caption: Any) -> None:
    done = caption(HYPOTHESES, REFERENCES, "--per-item", "--json")
    assert (done.code, done.err) == (0, "")
    names = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    assert list(done.json) == ["metrics", "per_item", "not_available"]
    assert list(done.json["metrics"]) == names
    assert {i: list(row) for i, row in done.json["per_item"].items()} == dict.fromkeys(REFERENCES, names)
    assert list(done.json["not_available"]) == ["METEOR", "SPICE"]
    assert done.json["per_item"]["c"]["CIDEr"] == pytest.approx(10)
    assert "per_item" not in caption(HYPOTHESES, REFERENCES, "--json").json


def test_captions_in_the_lists_of_coco(caption: Any) -> None:
    hypotheses = [{"image_id": i, "caption": text} for i, text in HYPOTHESES.items()]
    references = [{"image_id": i, "captions": texts} for i, texts in REFERENCES.items()]
    assert caption(hypotheses, references, "--json").json == caption(HYPOTHESES, REFERENCES, "--json").json


def test_captions_equal_the_reference(vlm_command: Any, shared: Path) -> None:
    folder = shared / "golden/metrics"
    files = ["--hypotheses", folder / "caption_hyps_clean.json", "--references", folder / "caption_refs.json"]
    scored = vlm_command("score", "caption", *files, "--per-item", "--json").json
    expected = json.loads((folder / "caption_scores_clean.json").read_text())
    assert scored["metrics"] == pytest.approx({k: expected["corpus"][k] for k in scored["metrics"]}, abs=1e-9)
    for item, values in scored["per_item"].items():
        assert values == pytest.approx({k: expected["per_image"][item][k] for k in values}, abs=1e-9), item


def test_odd_captions_are_scored_and_named(caption: Any) -> None:
    hypotheses = HYPOTHESES | {"a": " ", "b": "..."}
    done = caption(hypotheses, REFERENCES | {"c": ["a man\ron a horse", ""]}, "--json")
    assert done.code == 0
    warnings = done.json["warnings"]
    assert warnings[0] == "1 of 3 hypotheses are empty and scored as such (first: 'a')"
    assert warnings[1] == "1 of 3 hypotheses have no words once tokenised (first: 'b')"
    assert warnings[2] == "1 of 5 references are empty and scored as such (first: 'c')"
    assert "1 of 5 references hold a line break" in warnings[3]
    assert done.complaints == [f"vlm: {warning}" for warning in warnings]


def test_one_image_says_so(caption: Any) -> None:
    done = caption({"a": "a dog"}, {"a": ["a dog"]}, "--json")
    assert (done.json["metrics"]["CIDEr"], len(done.json["warnings"])) == (0, 1)
    assert "CIDEr is 0" in done.err


def test_hostile_captions(caption: Any) -> None:
    strange = ["\ud800 lone", "\x00\x01", "\u202eright to left", "\U0001f600", "a" * 10_000, "|||", "1 2 3 4 " * 999]
    texts = {text: text for text in strange}
    done = caption(texts, {text: [text] for text in strange}, "--per-item", "--json")
    assert done.code == 0
    assert list(done.json["per_item"]) == strange
    assert caption(texts, {text: [text] for text in strange}, "--per-item").code == 0


def test_answers(vqa: Any) -> None:
    done = vqa(PREDICTIONS, {"annotations": ANNOTATIONS}, "--per-item", "--json")
    assert (done.code, done.err) == (0, "")
    by_type = {"number": 100, "other": 45, "other (question type)": 0, "what color": 95}
    assert done.json == {
        "metrics": {"accuracy": pytest.approx(190 / 3), "by_type": pytest.approx(by_type)},
        "per_item": pytest.approx({"1": 90, "2": 100, "3": 0}),
    }


def test_answers_in_every_form(vqa: Any) -> None:
    plain = {str(a["question_id"]): ["red"] * 3 + ["blue"] * 7 for a in ANNOTATIONS}
    listed = [{"question_id": i, "answers": texts} for i, texts in plain.items()]
    predictions = [{"question_id": int(i), "answer": text} for i, text in PREDICTIONS.items()]
    scores = [vqa(p, a, "--json").json["metrics"] for p in (PREDICTIONS, predictions) for a in (plain, listed)]
    assert scores == [{"accuracy": pytest.approx(190 / 3), "by_type": {}}] * 4
    one = [{"question_id": 7, "answers": "Red"}]
    assert vqa({"7": "red"}, one, "--json", protocol="exact").json["metrics"]["accuracy"] == 100


@pytest.mark.parametrize(
    ("protocol", "percent"),
    [("exact", 50), ("gqa", 0), ("anls", 100 * (1 + 0.75) / 2), ("relaxed", 100), ("vqav2", 0), ("textvqa", 0)],
)
def test_protocols(vqa: Any, protocol: str, percent: float) -> None:
    done = vqa({"1": "Two", "2": "1000"}, {"1": ["two"], "2": ["1040"]}, "--json", protocol=protocol)
    assert done.json["metrics"]["accuracy"] == pytest.approx(percent)
    assert ("warnings" in done.json) is (protocol in ("vqav2", "textvqa"))


def test_pope_has_all_its_figures(vqa: Any) -> None:
    answers = {"1": "yes", "2": "no", "3": "no", "4": "yes"}
    metrics = vqa({"1": "Yes.", "2": "no", "3": "yes", "4": "No"}, answers, "--json", protocol="pope").json["metrics"]
    assert metrics == {"accuracy": 50, "precision": 50, "recall": 50, "f1": 50, "yes_ratio": 50, "by_type": {}}
    bad = vqa({"1": "yes"}, {"1": "maybe"}, protocol="pope")
    assert (bad.code, bad.complaints[0].endswith("a.json: label 'maybe'; expected yes or no")) == (2, True)


def test_answers_equal_the_official_evaluation(vqa: Any, shared: Path) -> None:
    questions = json.loads((shared / "golden/metrics/vqa_cases.json").read_text())["questions"]
    predictions = {str(q["question_id"]): q["prediction"] for q in questions}
    scored = vqa(predictions, {"annotations": questions}, "--per-item", "--json").json
    official = {str(q["question_id"]): q["accuracy_pct"] for q in questions}
    assert {i: round(percent, 2) for i, percent in scored["per_item"].items()} == official
    for answer_type in ("yes/no", "number", "other"):
        mine = [official[str(q["question_id"])] for q in questions if q["answer_type"] == answer_type]
        assert scored["metrics"]["by_type"][answer_type] == pytest.approx(sum(mine) / len(mine), abs=0.005)


def test_retrieval(retrieval: Any) -> None:
    sim = np.array([[5, 5, 5], [1, 9, 2], [7, 3, 4], [0, 8, 8]], np.float32)
    done = retrieval("--json", sim=sim, txt2img=np.array([0, 1, 2, 2]))
    assert (done.code, done.err) == (0, "")
    assert list(done.json["metrics"]) == ["t2i", "i2t"]
    assert list(done.json["metrics"]["t2i"]) == ["R@1", "R@5", "R@10", "MedR", "MeanR"]
    assert done.json["metrics"]["t2i"]["R@1"] == {"mean": 0.5, "optimistic": 0.75, "pessimistic": 0.25}
    assert done.json["metrics"]["t2i"]["MeanR"] == {"mean": 1.625, "optimistic": 1.25, "pessimistic": 2}
    assert "images have no text" in retrieval("--json", sim=sim[:3, :], txt2img=np.array([0, 1, 1])).json["warnings"][0]


def test_retrieval_equals_the_references(retrieval: Any, shared: Path) -> None:
    arrays = np.load(shared / "golden/metrics/retrieval_cases.npz")
    for case, expected in json.loads((shared / "golden/metrics/retrieval_expected.json").read_text()).items():
        metrics = retrieval("--json", sim=arrays[f"{case}__sim"], txt2img=arrays[f"{case}__txt2img"]).json["metrics"]
        for way, figures in metrics.items():
            for name, values in figures.items():
                wanted = {ties: expected[f"{way}_{ties}_{name}"] for ties in values}
                assert values == pytest.approx(wanted, abs=1e-9), (case, way, name)


def test_tables(caption: Any, vqa: Any, retrieval: Any) -> None:
    shown = [
        caption(HYPOTHESES, REFERENCES, "--per-item"),
        vqa(PREDICTIONS, ANNOTATIONS, "--per-item"),
        retrieval(sim=np.eye(2), txt2img=np.array([0, 1])),
    ]
    assert [done.code for done in shown] == [0, 0, 0]
    for done, words in zip(shown, (["CIDEr", "METEOR"], ["accuracy", "63.33"], ["t2i", "R@10"]), strict=True):
        assert all(word in done.out for word in words)


def test_one_image_makes_no_retrieval(retrieval: Any) -> None:
    done = retrieval("--json", sim=np.array([[0.1], [0.2]]), txt2img=np.array([0, 0]))
    assert done.code == 0
    assert done.complaints == [
        "vlm: there is one image: whatever the similarities, every text finds it and it finds its text"
    ]


@pytest.mark.parametrize("name", ["caption", "vqa", "retrieval"])
def test_help_shows_an_example(vlm_command: Any, name: str) -> None:
    assert f"vlm score {name} --" in vlm_command("score", name, "--help").out.split("Example:")[1]
    assert len(vlm_command("score", name).complaints) == 1

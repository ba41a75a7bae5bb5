"""`vlm score`: the exact shapes of its JSON, and the reference's figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored_files import ANNOTATIONS, HYPOTHESES, PREDICTIONS, REFERENCES

from vlm.metrics.caption import NotAvailable, Score


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
    assert list(done.json["metrics"]) == ["t2i", "i2t", "both"]
    assert list(done.json["metrics"]["t2i"]) == ["R@1", "R@5", "R@10", "MedR", "MeanR", "mAP", "nDCG@10"]
    assert done.json["metrics"]["t2i"]["R@1"] == {"mean": 0.5, "optimistic": 0.75, "pessimistic": 0.25}
    assert done.json["metrics"]["t2i"]["MeanR"] == {"mean": 1.625, "optimistic": 1.25, "pessimistic": 2}
    assert list(done.json["metrics"]["both"]) == ["mean R"]
    assert "images have no text" in retrieval("--json", sim=sim[:3, :], txt2img=np.array([0, 1, 1])).json["warnings"][0]


def test_retrieval_equals_the_references(retrieval: Any, shared: Path) -> None:
    arrays = np.load(shared / "golden/metrics/retrieval_cases.npz")
    for case, expected in json.loads((shared / "golden/metrics/retrieval_expected.json").read_text()).items():
        metrics = retrieval("--json", sim=arrays[f"{case}__sim"], txt2img=arrays[f"{case}__txt2img"]).json["metrics"]
        for way in ("t2i", "i2t"):
            figures = metrics[way]
            precision, gain = figures.pop("mAP")["pessimistic"], figures.pop("nDCG@10")["mean"]
            assert precision == pytest.approx(expected[f"{way}_sklearn_mAP"], abs=1e-9), (case, way)
            assert gain == pytest.approx(expected[f"{way}_sklearn_nDCG@10"], abs=1e-9), (case, way)
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


def classified(vlm_command: Any, tmp_path: Path, **arrays: Any) -> Any:
    np.savez(tmp_path / "c.npz", **arrays)
    return vlm_command("score", "classification", "--scores", tmp_path / "c.npz", "--json")


def test_one_label_an_item(vlm_command: Any, tmp_path: Path) -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    labels = np.array([0, 1, 1, 2])
    metrics = classified(vlm_command, tmp_path, scores=scores, labels=labels).json["metrics"]
    # Classes are right in 1, 1/2 and 1; 0.7, 0.8, 0.6 and 0.6 are 0.3, 0.2 and, of the last two, 0.1 off.
    assert metrics == pytest.approx(
        {"accuracy@1": 0.75, "mean_class_recall": 2.5 / 3, "calibration_error": (0.3 + 0.2 + 2 * 0.1) / 4}
    )
    cosines = classified(vlm_command, tmp_path, scores=10 * np.eye(8), labels=np.arange(8)).json
    assert cosines["metrics"] == {"accuracy@1": 1, "accuracy@5": 1, "mean_class_recall": 1}
    assert list(cosines["not_available"]) == ["calibration_error"]


def test_several_labels_an_item(vlm_command: Any, tmp_path: Path) -> None:
    labels = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    done = classified(vlm_command, tmp_path, scores=np.array([[3, 1, 0], [2, 1, 0], [1, 1, 1]]), labels=labels)
    # The first class at ranks 1 and 3, the last one at 2 of two that are equal.
    assert done.json["metrics"]["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)
    assert done.complaints == ["vlm: 1 of 3 classes have no item and are left out"]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"scores": np.eye(2), "labels": np.array([0, 2])}, "for 2 classes"),
        ({"scores": np.eye(2), "labels": np.array([0.0, 1.0])}, "expected numbers and integers"),
        ({"scores": np.eye(2)}, "no labels in it"),
        ({"scores": np.eye(2), "labels": np.array([[0, 2], [0, 0]])}, "0 and 1 only"),
    ],
)
def test_classes_that_do_not_fit(vlm_command: Any, tmp_path: Path, arrays: Any, says: str) -> None:
    done = classified(vlm_command, tmp_path, **arrays)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert "c.npz: " in done.err
    assert says in done.err


TRUTH = {"v": {"duration": 30, "timestamps": [[0, 10], [20, 30]], "sentences": ["a dog runs", "a cat sleeps at night"]}}
SAID = {"v": [{"sentence": "a dog runs", "timestamp": [0, 10]}, {"sentence": "two cars", "timestamp": [11, 12]}]}


def dense(vlm_command: Any, write: Any, said: Any, *truths: Any) -> Any:
    files = [part for n, truth in enumerate(truths) for part in ("--references", write(f"val_{n}.json", truth))]
    return vlm_command("score", "dense", "--hypotheses", write("said.json", said), *files, "--json")


def test_dense_captions(vlm_command: Any, write: Any) -> None:
    done = dense(vlm_command, write, {"results": SAID}, TRUTH)
    assert (done.code, done.err) == (0, "")
    metrics = done.json["metrics"]
    assert (metrics["precision@0.5"], metrics["recall@0.9"]) == (0.5, 0.5)
    assert metrics["ROUGE_L"] == pytest.approx(0.5)  # one caption is its reference, the other meets nothing
    assert list(done.json["not_available"]) == ["SODA_c"]
    more = dense(vlm_command, write, {"results": SAID}, TRUTH, {"w": TRUTH["v"]})
    assert more.json["metrics"]["ROUGE_L"] == pytest.approx(0.25)
    assert more.json["warnings"] == ["1 of 2 videos have no prediction (first: 'w')"]


def test_soda_is_meteors(vlm_command: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["--hypotheses", write("s.json", {"results": SAID}), "--references", write("v.json", TRUTH)]
    for found, key in ((NotAvailable("no Java here"), "not_available"), (Score(0, [1.0, 0.5, 0.0, 1.0]), "metrics")):
        monkeypatch.setattr("vlm.evaluation.scoring.dense.meteor", lambda *_, found=found: found)
        scored = vlm_command("score", "dense", *files, "--soda", "--json").json
        assert list(scored[key])[-1] == "SODA_c"
    # Of the pairs (true, said) only the first moments overlap; two were said and two are true.
    assert scored["metrics"]["SODA_c"] == pytest.approx(2 * 1.0 / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("said", "truth", "says"),
    [
        ([], TRUTH, "expected an object with `results`"),
        ({"results": {"v": [{"sentence": "a dog"}]}}, TRUTH, "1 of 1 videos whose moments lack a sentence"),
        ({"results": SAID}, {"v": {"timestamps": [[0, 1]], "sentences": []}}, "1 of 1 videos without as many"),
        ({"results": SAID}, {"w": TRUTH["v"]}, "1 videos unknown to"),
        ({"results": {}}, {}, "no videos in it"),
    ],
)
def test_dense_captions_that_do_not_fit(vlm_command: Any, write: Any, said: Any, truth: Any, says: str) -> None:
    done = dense(vlm_command, write, said, truth)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert says in done.err


@pytest.mark.parametrize("name", ["caption", "vqa", "retrieval", "classification", "dense"])
def test_help_shows_an_example(vlm_command: Any, name: str) -> None:
    assert f"vlm score {name} --" in vlm_command("score", name, "--help").out.split("Example:")[1]
    assert len(vlm_command("score", name).complaints) == 1

"""`vlm score`: the exact shapes of its JSON, the reference's figures, and files that must not be scored."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HYPOTHESES = {"a": "A dog runs.", "b": "Two kids play soccer", "c": "a man rides a horse"}
REFERENCES = {"a": ["a dog runs on the grass", "A dog!"], "b": ["kids play"], "c": ["a man rides a horse"]}
ANNOTATIONS = [
    {
        "question_id": number,
        "question_type": kind,
        "answer_type": answer,
        "answers": [{"answer": "red", "answer_id": 1}] * 3 + [{"answer": "blue"}] * 7,
    }
    for number, kind, answer in ((1, "what color", "other"), (2, "what color", "number"), (3, "other", "other"))
]
PREDICTIONS = {"1": "red", "2": "blue", "3": "green"}

Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a value as JSON, or bytes as they are."""

    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return written


@pytest.fixture
def caption(vlm_command: Any, write: Write) -> Callable[..., Any]:
    def run(hypotheses: Any, references: Any, *options: str) -> Any:
        files = ["--hypotheses", write("h.json", hypotheses), "--references", write("r.json", references)]
        return vlm_command("score", "caption", *files, *options)

    return run


@pytest.fixture
def vqa(vlm_command: Any, write: Write) -> Callable[..., Any]:
    def run(predictions: Any, answers: Any, *options: str, protocol: str = "vqav2") -> Any:
        files = ["--predictions", write("p.json", predictions), "--answers", write("a.json", answers)]
        return vlm_command("score", "vqa", *files, "--protocol", protocol, *options)

    return run


@pytest.fixture
def retrieval(vlm_command: Any, tmp_path: Path) -> Callable[..., Any]:
    def run(*options: str, **arrays: Any) -> Any:
        np.savez(tmp_path / "s.npz", **arrays)
        return vlm_command("score", "retrieval", "--similarity", tmp_path / "s.npz", *options)

    return run


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


@pytest.mark.parametrize(
    ("hypotheses", "references", "says"),
    [
        ({"a": "x"}, REFERENCES, ["h.json: 2 of 3 images of", "missing (first: 'b')"]),
        (HYPOTHESES | {"z": "x", "y": "x"}, REFERENCES, ["2 of 5 ids unknown to", "(first: 'z')"]),
        (
            HYPOTHESES | {"a": float("nan"), "b": 3},
            REFERENCES,
            ["2 of 3 hypotheses are not strings", "1 NaN, 1 number"],
        ),
        (HYPOTHESES, REFERENCES | {"a": []}, ["1 of 3 items have no references (first: 'a')"]),
        (HYPOTHESES, REFERENCES | {"a": "one"}, ["1 of 3 items whose references are not a list of strings"]),
        (HYPOTHESES, REFERENCES | {"a": [None]}, ["1 of 3 items whose references are not a list of strings"]),
        ([{"image_id": 1, "caption": "x"}] * 2, {"1": ["x"]}, ["h.json: 1 ids more than once (first: '1')"]),
        ([{"image": 1, "caption": "x"}], {"1": ["x"]}, ["1 of 1 rows lack image_id or caption (first: 0)"]),
        ({}, {}, ["no images in it"]),
        ("text", REFERENCES, ["one string; expected an object or a list"]),
        (b'{"a": "x", "a": "y"}', REFERENCES, ["1 keys more than once in one object (first: 'a')"]),
        (b'{"a": "\xe9"}', REFERENCES, ["not UTF-8 (byte 7 is 0xe9)"]),
        (b"", REFERENCES, ["h.json: the file is empty"]),
        (b'{"a": ', REFERENCES, ["not JSON: Expecting value: line 1"]),
        (b"[" * 100_000, REFERENCES, ["not JSON"]),
    ],
)
def test_captions_that_do_not_fit(caption: Any, hypotheses: Any, references: Any, says: list[str]) -> None:
    done = caption(hypotheses, references, "--json")
    assert (done.code, done.out) == (2, "")
    assert any(all(words in line for words in says) for line in done.complaints), done.err
    assert all(line.startswith("vlm: ") for line in done.complaints)


def test_every_problem_has_its_line(caption: Any, vlm_command: Any, tmp_path: Path) -> None:
    assert len(caption({"a": 1, "z": "x"}, {"a": ["x"], "b": [], "c": ["y"]}).complaints) == 4
    files = ["--hypotheses", tmp_path / "no.json", "--references", tmp_path]
    done = vlm_command("score", "caption", *files)
    assert (done.code, len(done.complaints)) == (2, 2)
    assert "no.json: no such file" in done.err


@pytest.mark.parametrize(
    ("predictions", "answers", "says"),
    [
        ({"1": "red"}, ANNOTATIONS, "2 of 3 questions of"),
        (PREDICTIONS | {"9": "x"}, ANNOTATIONS, "1 of 4 ids unknown to"),
        (PREDICTIONS, [*ANNOTATIONS, ANNOTATIONS[0]], "1 ids more than once (first: '1')"),
        (PREDICTIONS | {"1": None}, ANNOTATIONS, "1 of 3 predictions are not strings but 1 null"),
        (PREDICTIONS, [{"question": 1}], "1 of 1 rows lack question_id or answers"),
        (PREDICTIONS, [{"question_id": True, "answers": "x"}], "1 of 1 rows lack question_id or answers"),
        ({"1": "red"}, [{"question_id": 1, "answers": []}], "1 of 1 items have no answers"),
        ({"1": "red"}, [{"question_id": 1, "answers": [{"text": "red"}]}], "answers are not a list of strings"),
    ],
)
def test_answers_that_do_not_fit(vqa: Any, predictions: Any, answers: Any, says: str) -> None:
    done = vqa(predictions, answers, "--json")
    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_an_unknown_protocol(vqa: Any) -> None:
    done = vqa(PREDICTIONS, ANNOTATIONS, protocol="vqa2")
    assert (done.code, done.complaints) == (2, ["vlm: unknown protocol 'vqa2'; did you mean 'vqav2'?"])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"sim": np.eye(2)}, "no txt2img in it; got sim"),
        ({"sim": np.eye(2), "txt2img": np.array([0])}, "one each"),
        ({"sim": np.array([[1, np.nan]]), "txt2img": np.array([0])}, "1 similarities are not finite"),
        ({"sim": np.eye(2), "txt2img": np.array([0, 2])}, "for 2 images"),
        ({"sim": np.eye(2), "txt2img": np.array([0.0, 1.0])}, "expected integers"),
        ({"sim": np.array([["a"]]), "txt2img": np.array([0])}, "expected numbers"),
        ({"sim": np.array([[{}]], object), "txt2img": np.array([0])}, "not an .npz file of plain arrays"),
        ({"sim": np.zeros((0, 3)), "txt2img": np.zeros(0, int)}, "shape (0, 3)"),
    ],
)
def test_similarities_that_do_not_fit(retrieval: Any, arrays: Any, says: str) -> None:
    done = retrieval("--json", **arrays)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert "s.npz: " in done.err
    assert says in done.err


def test_files_that_are_no_npz(vlm_command: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.eye(2))
    np.savez(tmp_path / "whole.npz", sim=np.eye(20), txt2img=np.arange(20))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    (tmp_path / "text.npz").write_text("words")
    (tmp_path / "empty.npz").touch()
    with zipfile.ZipFile(tmp_path / "words.npz", "w") as file:
        file.writestr("sim", "words")
        file.writestr("txt2img", "words")
    for name in ("one.npy", "cut.npz", "text.npz", "empty.npz", "none.npz", "words.npz"):
        done = vlm_command("score", "retrieval", "--similarity", tmp_path / name)
        assert (done.code, done.out, len(done.complaints)) == (2, "", 1), name
        assert name in done.err
        assert "pickle" not in done.err


def test_a_pickle_is_never_opened(vlm_command: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", sim=np.array([_Trap()], object), txt2img=np.arange(1))
    np.save(tmp_path / "object.npy", np.array([_Trap()], object))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(_Trap()))
    for name in ("objects.npz", "object.npy", "bare.npz"):
        done = vlm_command("score", "retrieval", "--similarity", tmp_path / name)
        assert (done.code, done.out, len(done.complaints)) == (2, "", 1), name


class _Trap:
    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


def test_one_image_makes_no_retrieval(retrieval: Any) -> None:
    done = retrieval("--json", sim=np.array([[0.1], [0.2]]), txt2img=np.array([0, 0]))
    assert done.code == 0
    assert done.complaints == [
        "vlm: there is one image: whatever the similarities, every text finds it and it finds its text"
    ]


def test_one_fault_is_one_line(caption: Any) -> None:
    rows = [{"id": 1, "text": "x"}]
    assert len(caption(rows, REFERENCES).complaints) == 1
    assert len(caption(HYPOTHESES, rows).complaints) == 1
    assert len(caption(HYPOTHESES, {}).complaints) == 1


@pytest.mark.parametrize("name", ["caption", "vqa", "retrieval"])
def test_help_shows_an_example(vlm_command: Any, name: str) -> None:
    assert f"vlm score {name} --" in vlm_command("score", name, "--help").out.split("Example:")[1]
    assert len(vlm_command("score", name).complaints) == 1

"""`vlm score` on files that must not be scored: one line for each fault, and nothing else."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored_files import ANNOTATIONS, HYPOTHESES, PREDICTIONS, REFERENCES

# What stands where an object or a list of objects should.
MALFORMED: dict[str, Any] = {
    "number": 3,
    "null": None,
    "text": "x",
    "empty list": [],
    "empty object": {},
    "numbers": [3, 4],
    "nulls": [None],
    "lists": [[], []],
    "no keys": [{}],
    "annotations are a number": {"annotations": 3},
    "annotations are null": {"info": {}, "annotations": None, "license": "x"},
    "annotations are an object": {"annotations": {"1": ["red"]}},
    "annotations are text": {"annotations": "x"},
    "annotations are empty": {"annotations": []},
    "annotations are numbers": {"annotations": [3]},
    "results are wrapped": {"results": [{"question_id": 1, "answer": "red"}]},
    "values are numbers": {"1": 3, "2": 4},
    "values are null": {"1": None},
    "values are objects": {"1": {"a": 1}},
    "values are nested": {"1": [["a"]]},
    "values are NaN": {"1": float("nan")},
    "ids are lists": [{"question_id": [1], "image_id": [1], "answer": "x", "caption": "x", "answers": ["x"]}],
    "ids are fractions": [{"question_id": 1.5, "image_id": 1.5, "answer": "x", "caption": "x", "answers": ["x"]}],
    "cut off": b'{"1": ["red"',
    "two objects": b"{} {}",
    "lines": b'{"1": "x"}\n{"2": "y"}\n',
    "not a number": b"NaN",
    "UTF-16": '{"1": "x"}'.encode("utf-16"),
    "zero bytes": bytes(10),
    "white space": b" \n",
    "other ids": {"annotation": ["red"], "other": ["blue"]},
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_one_line(caption: Any, vqa: Any, content: Any) -> None:
    runs = {
        "h.json": caption(content, REFERENCES, "--json"),
        "r.json": caption(HYPOTHESES, content, "--json"),
        "p.json": vqa(content, ANNOTATIONS, "--json"),
        "a.json": vqa(PREDICTIONS, content, "--json"),
    }
    for name, done in runs.items():
        assert (done.code, done.out, len(done.complaints)) == (2, "", 1), (name, done.err)
        assert name in done.complaints[0]


def test_ids_of_other_files_are_one_line(vqa: Any) -> None:
    done = vqa({"7": "red", "8": "red"}, ANNOTATIONS)
    (line,) = done.complaints
    assert line.endswith("a.json (first: '1')")
    assert "p.json: none of its 2 ids (first: '7') is one of the 3 of" in line


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
    [line] = done.complaints
    assert done.code == 2
    assert line.startswith("vlm: unknown protocol 'vqa2'; did you mean 'vqav2' or ")


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


@pytest.mark.parametrize("shape", ["(1000000, 1000000)", "(99999999999999999999, 3)", "(-3, 3)", "(3.0, 3)", "3"])
def test_an_array_of_a_shape_that_cannot_be(vlm_command: Any, tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as file:
        file.writestr("sim.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        file.writestr("txt2img.npy", b"")
    done = vlm_command("score", "retrieval", "--similarity", tmp_path / "odd.npz")
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert "odd.npz: not an .npz file of plain arrays" in done.err


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


def test_one_fault_is_one_line(caption: Any) -> None:
    rows = [{"id": 1, "text": "x"}]
    assert len(caption(rows, REFERENCES).complaints) == 1
    assert len(caption(HYPOTHESES, rows).complaints) == 1
    assert len(caption(HYPOTHESES, {}).complaints) == 1

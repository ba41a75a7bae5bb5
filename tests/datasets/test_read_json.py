"""JSON files that are broken, hostile or not what the card says: one line that says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from original_files import put, put_json, put_lines
from reading import QUESTION, read, refused, row


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"data": [', "a.json: not JSON"),
        (b"\xff\xfe\xff", "a.json: not JSON"),
        (b"[" * 200_000, "a.json: not JSON"),
        (b'{"rows": []}', "a.json: no key 'data' of 'data'; it has rows"),
        (b"[]", "a.json: no key 'data' of 'data'; it has a list"),
        (b'{"data": 3}', "expected a list or an object of records, got int"),
        (b'{"data": [3]}', "record 1: expected a JSON object, got int"),
        (b'{"data": [{"i": "0.png"}]}', "record 1: no key 'q'; it has i"),
        (b'{"data": {"x": {}, "x": {}}}', "key 'x' is there twice"),
    ],
)
def test_json(own: Path, content: bytes, words: str) -> None:
    put(own / "a.json", content)
    refused(own, words, "a.json", format={"name": "json", "records": "data"}, fields=QUESTION)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (row(i="../../etc/passwd"), "record 1: path '../../etc/passwd' leads out of"),
        (row(i="/etc/passwd"), "record 1: path '/etc/passwd' leads out of"),
        (row(i="a\\..\\..\\b"), "leads out of"),
        (row(i=None), "record 1: no picture"),
        (row(i=["0.png", 7]), "7"),
        (row(i=True), "the picture's or clip's path is bool 'True'; expected a text"),
        (row(i="absent.png"), "1 of 1 files of dataset own are missing, such as absent.png"),
        (row(q=None), "record 1: question is null; expected a text"),
        (row(q="  "), "record 1: question is empty"),
        (row(a=[]), "record 1: answers is an empty list"),
        (row(a=["x", None]), "record 1: answers is null"),
        (row(a={"x": 1}), "record 1: answers is dict"),
    ],
)
def test_records(own: Path, record: dict[str, Any], words: str) -> None:
    put_json(own / "a.json", [record])
    refused(own, words, "a.json", format="json", fields=QUESTION)


def test_a_file_that_is_too_large(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.datasets.readers.jsonfiles.MAX_JSON_BYTES", 10)
    put_json(own / "a.json", [row()])
    refused(own, "expected at most 10", "a.json", format="json", fields=QUESTION)


def test_ids_that_repeat(own: Path) -> None:
    put_json(own / "a.json", [row(n=1), row(n=2), row(n=1)])
    refused(own, "record 3: id '1' is there twice", "a.json", format="json", fields={**QUESTION, "id": "n"})


def test_values_that_do_not_fit_a_template(own: Path) -> None:
    put_json(own / "a.json", [row(n="seven")])
    fields = {**QUESTION, "image": "{n:03d}.png"}
    refused(own, "record 1: key 'n': 'seven' does not fit '{n:03d}.png'", "a.json", format="json", fields=fields)


def test_a_template_reaches_values_and_nothing_else(own: Path) -> None:
    put_json(own / "a.json", [row(n={"m": 0})])
    fields = {**QUESTION, "question": "{n.m} {q} {none?}"}
    assert read(own, "a.json", format="json", fields=fields)[0].question == "0 What?"
    refused(own, "no key 'q.__class__'", "a.json", format="json", fields={**QUESTION, "question": "{q.__class__}"})


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([{"n": 1, "a": "x"}], "n 2 has 0 records in"),
        ([{"n": 1, "a": "x"}, {"n": 2, "a": "x"}, {"n": 2, "a": "y"}], "n 2 has 2 records in"),
        ([{"n": 1, "a": "x"}, {"n": 2, "a": "x"}, {"n": 3, "a": "y"}], "1 ns match no record, such as '3'"),
        ([{"n": [1], "a": "x"}], "key 'n' is a list"),
    ],
)
def test_two_lists_that_do_not_match(own: Path, answers: list[dict[str, Any]], words: str) -> None:
    put_json(own / "q.json", [{"n": n, "i": "0.png", "q": "What?"} for n in (1, 2)])
    put_json(own / "a.json", answers)
    refused(own, words, "q.json", format={"name": "json", "join": {"path": "a.json", "by": "n"}}, fields=QUESTION)


def test_a_second_file_stays_in_the_folder(own: Path) -> None:
    put_json(own / "q.json", [])
    join = {"path": "../../a.json", "by": "n"}
    refused(own, "leads out of", "q.json", format={"name": "json", "join": join}, fields=QUESTION)


def turn(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


def test_llava(own: Path) -> None:
    turns = [turn("human", "<image>\nWhat?"), turn("gpt", "A cat."), turn("human", "Where?"), turn("gpt", "Here.")]
    rows = [{"id": "7", "image": "0.png", "conversations": turns}, {"id": "8", "conversations": turns[:2]}]
    put_json(own / "a.json", rows)
    first, second = read(own, "a.json", format="llava", where={"image?": "*"})
    assert (first.id, first.question, first.answers) == ("7#1", "What?", ("A cat.",))
    assert (second.id, second.question, second.answers) == ("7#2", "Where?", ("Here.",))
    put_json(own / "a.json", [{**rows[0], "conversations": turns[1:3]}])
    refused(own, "record 1: left out: conversations are by ['gpt', 'human']", "a.json", format="llava")


def test_a_mixture_is_read_without_what_cannot_be_used(own: Path) -> None:
    """LLaVA's has 40,688 conversations of text alone, and ids that several records have."""
    turns = [turn("human", "<image>\nWhat?"), turn("gpt", "A cat.")]
    said = [turn("human", "Hello"), turn("gpt", "Hi.")]
    rows = [
        {"id": "1", "image": "0.png", "conversations": turns},
        {"id": "t", "conversations": said},
        {"id": "1", "image": "1.png", "conversations": turns},
        {"id": "u", "conversations": said},
        {"id": "1", "image": "0.png", "conversations": turns},
        {"id": "lost", "conversations": turns},
        {"id": "odd", "image": "0.png", "conversations": turns[::-1]},
    ]
    put_json(own / "a.json", rows)
    told: list[str] = []
    found = read(own, "a.json", format="llava", report=told.append)
    assert [(e.id, e.pictures[0].name) for e in found] == [("1#1", "0.png"), ("1#1~2", "1.png"), ("1#1~3", "0.png")]
    assert [line.partition(": ")[2] for line in told] == [
        "record 2: left out: a conversation without a picture (1 more like it)",
        "record 3: an id that is there already, which gets a number (1 more like it)",
        "record 6: left out: no key 'image'; it has id, conversations, question, answer",
        "record 7: left out: conversations are by ['gpt', 'human']; expected human and gpt in turn",
    ]


CHOICE = {"image": "i", "question": "q", "options": "o", "answers": "a"}


@pytest.mark.parametrize(
    ("more", "how", "words"),
    [
        ({"o": ["x", "y"], "a": "C"}, "letter", "answer 'C'; expected one of AB"),
        ({"o": ["x", "y"], "a": "AB"}, "letter", "answer 'AB'; expected one of AB"),
        ({"o": ["x", "y"], "a": 2}, "index", "answer '2'; expected 0 to 1"),
        ({"o": ["x", "y"], "a": -1}, "index", "answer '-1'; expected 0 to 1"),
        ({"o": ["x"], "a": 0}, "index", "1 options; expected 2 to 26"),
        ({"o": ["x", "", "z"], "a": 0}, "index", "options is empty"),
        ({"o": "x, y", "a": 0}, "index", "options are a str; expected a list"),
        ({"o": "[__import__('os')]", "a": 0}, "index", "options are a str; expected a list"),
        ({"o": "[" * 10_000, "a": 0}, "index", "options are a str; expected a list"),
    ],
)
def test_choices(own: Path, more: dict[str, Any], how: str, words: str) -> None:
    put_lines(own / "a.jsonl", row(**more))
    refused(own, words, "a.jsonl", fields={**CHOICE, "answer_is": how})

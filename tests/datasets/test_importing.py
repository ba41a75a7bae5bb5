"""What others write becomes conversations that can be read, each picture at its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm.datasets.conversations import ConversationFile, Sample
from vlm.datasets.examples import Example
from vlm.datasets.importing import (
    Columns,
    conversations_of,
    shared_conversations,
    table_conversations,
    write_conversations,
)
from vlm.errors import BadInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures below it."""
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path


def written(records: Any, to: Path) -> list[Sample]:
    count = write_conversations(records, to)
    file = ConversationFile(to)
    assert (len(file), file.faulty) == (count, 0)
    return list(file)


def said(sample: Sample) -> list[tuple[str, str]]:
    """Role and content of each message, a picture as `[image]`."""
    return [
        (m.role, "".join(part.text if part.kind == "text" else f"[{part.kind}]" for part in m.parts))
        for m in sample.messages
    ]


def test_llava_and_sharegpt(folder: Path) -> None:
    records = [
        {"id": 7, "image": "pictures/a.png", "conversations": [
            {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A."},
            {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "B."}]},
        {"image": ["pictures/b.png", "pictures/c.png"], "conversations": [
            {"from": "human", "value": "First <image> then <image>?"}, {"from": "gpt", "value": "Yes."}]},
        {"image": "pictures/c.png", "conversations": [
            {"from": "system", "value": "Be brief."}, {"from": "user", "value": "Said without a mark?"},
            {"from": "assistant", "value": "Yes."}]},
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hello."}]},
        {"video": "pictures/clip.mp4", "conversations": [
            {"from": "human", "value": "<video>What moves?"}, {"from": "gpt", "value": "He."}]},
        {"image": "pictures/a.png", "conversations": [
            {"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "?"}]},
        {"conversations": [{"from": "robot", "value": "?"}]},
        {"other": 1},
    ]  # fmt: skip
    source = folder / "llava.json"
    source.write_text(json.dumps(records))
    left_out: list[tuple[str, str]] = []
    to = folder / "train.jsonl"
    first, second, third, text, clip = written(shared_conversations(source, lambda *told: left_out.append(told)), to)
    assert said(first) == [("user", "[image]What?"), ("assistant", "A."), ("user", "Why?"), ("assistant", "B.")]
    assert (first.id, first.media) == ("7", (str(folder / "pictures/a.png"),))
    assert said(second)[0] == ("user", "First[image]then[image]?")
    assert [Path(str(path)).name for path in second.media] == ["b.png", "c.png"]
    assert said(third)[:2] == [("system", "Be brief."), ("user", "[image]Said without a mark?")]
    assert said(text) == [("user", "Hello"), ("assistant", "Hello.")]
    assert said(clip)[0] == ("user", "[video]What moves?")
    assert json.loads(to.read_text().splitlines()[0])["messages"][0]["content"][0] == {
        "type": "image", "image": "pictures/a.png"
    }  # fmt: skip
    assert [where.rpartition(" ")[2] for where, _ in left_out] == ["6", "7", "8"]
    assert "expected places for 1 pictures and clips, got 2" in left_out[0][1]
    lines = folder / "llava.jsonl"
    lines.write_text("".join(json.dumps(record) + "\n" for record in records[:2]))
    again = written(shared_conversations(lines, lambda *told: None), folder / "again.jsonl")
    assert [said(one) for one in again] == [said(first), said(second)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables(folder: Path, suffix: str) -> None:
    rows = [
        {"file": "a.png", "label": "cat", "asked": "Which?", "split": "train"},
        {"file": str(folder / "pictures" / "b.png"), "label": "dog", "asked": "And here?", "split": "train"},
        {"file": "c.png", "label": "cow", "asked": "Held out?", "split": "test"},
        {"file": "none.png", "label": "?", "asked": "?", "split": "train"},
    ]
    source = folder / f"table{suffix}"
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), source)
    elif suffix == ".jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = {".csv": ",", ".tsv": "\t"}[suffix]
        source.write_text("".join(mark.join(row) + "\n" for row in [list(rows[0]), *(row.values() for row in rows)]))
    left_out: list[tuple[str, str]] = []
    columns = Columns("file", "label", "asked", only={"split": "train"})
    made = written(
        table_conversations(source, columns, folder / "pictures", lambda *told: left_out.append(told)),
        folder / "train.jsonl",
    )
    assert [said(one) for one in made] == [
        [("user", "[image]Which?"), ("assistant", "cat")], [("user", "[image]And here?"), ("assistant", "dog")]
    ]  # fmt: skip
    assert len(left_out) == 1
    assert "none.png: no such file" in left_out[0][1]
    told = [("user", "[image]Name it."), ("assistant", "cat")]
    asked = table_conversations(
        source, Columns("file", "label", asked="Name it."), folder / "pictures", lambda *_: None
    )
    assert said(written(asked, folder / "asked.jsonl")[0]) == told
    with pytest.raises(BadInput, match=r"no key 'colour'; it has file, label"):
        list(table_conversations(source, Columns("file", "colour"), folder, lambda *_: None))


def test_pictures_in_a_parquet_file(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    content = (folder / "pictures" / "a.png").read_bytes()
    rows = [{"image": {"bytes": content, "path": "a.png"}, "caption": "A square."}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "hub.parquet")
    records = table_conversations(folder / "hub.parquet", Columns("image", "caption"), folder, lambda *_: None)
    (sample,) = written(records, folder / "train.jsonl")
    assert Path(str(sample.media[0])).read_bytes() == content


def test_examples_of_a_data_set(folder: Path) -> None:
    picture = folder / "pictures" / "a.png"

    def made(asked: str | None = None, **keys: Any) -> list[list[tuple[str, str]]]:
        example = Example.model_validate({"id": "x", "image": picture, **keys})
        records = conversations_of(example, asked)
        return [said(one) for one in written(records, folder / "made.jsonl")]

    assert made(captions=("a dog , wet", "Two dogs")) == [
        [("user", "[image]Describe the picture."), ("assistant", "A dog, wet.")],
        [("user", "[image]Describe the picture."), ("assistant", "Two dogs.")],
    ]
    assert made(question="Which?", answers=("B",), options=("cat", "dog")) == [
        [("user", "[image]Which?\nA. cat\nB. dog"), ("assistant", "B")]
    ]
    turns = ({"question": "What?", "answers": ("A cat",)}, {"question": "Where?", "answers": ("There", "Here")})
    assert made(turns=turns) == [
        [("user", "[image]What?"), ("assistant", "A cat"), ("user", "Where?"), ("assistant", "There")]
    ]
    assert made(answers=("cat",), asked="Which animal?") == [[("user", "[image]Which animal?"), ("assistant", "cat")]]


def test_nothing_to_write_leaves_nothing(tmp_path: Path) -> None:
    to = tmp_path / "train.jsonl"
    to.write_text("before")
    with pytest.raises(BadInput, match="expected conversations to write, got none"):
        write_conversations([], to)
    assert to.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]

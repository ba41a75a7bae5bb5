"""Our own schema, and what a data set card promises whatever the format is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from PIL import Image

from vlm.datasets.examples import DatasetCard, Example, load_card
from vlm.errors import BadInput


def card(**keys: Any) -> DatasetCard:
    given = {"name": "own", "about": "a", "licence": "none", "source": "the test", "folder": "own"}
    return DatasetCard.model_validate({**given, "annotations": "a.jsonl", "splits": {"train": None}, **keys})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The data folder's `own`, with three pictures and a clip's name."""
    folder = tmp_path / "own"
    (folder / "x").mkdir(parents=True)
    for name in ("x/a.png", "0.png", "1.png"):
        Image.new("RGB", (4, 4)).save(folder / name)
    (folder / "clip.mp4").touch()
    return folder


def write(home: Path, *lines: dict[str, Any] | bytes) -> Path:
    content = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    (home / "a.jsonl").write_bytes(content)
    return home.parent


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{not json", "not JSON"),
        (b'{"image": "\xff\xfe.png"}', "not JSON"),
        (b'{"image": "0.png", "image": "1.png"}', "key 'image' is there twice"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b'{"captions": ["a"]}', "expected one of image, video, frames"),
        (b'{"image": "0.png", "captions": 7}', "captions"),
        (b'{"image": "../own/0.png"}', "path '../own/0.png' leads out of"),
        (b'{"image": "/etc/passwd"}', "path '/etc/passwd' leads out of"),
        (b'{"frames": ["x/../../../etc/passwd"]}', "leads out of"),
        (b'{"video": "C:\\\\clip.mp4"}', "leads out of"),
    ],
)
def test_a_bad_line_is_named_with_its_file(home: Path, line: bytes, words: str) -> None:
    data = write(home, {"image": "x/a.png"}, b"", line)
    with pytest.raises(BadInput) as caught:
        card().read(data)
    assert f"{home / 'a.jsonl'}:3" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_without_end_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.datasets.readers.jsonfiles.MAX_LINE_BYTES", 100)
    with pytest.raises(BadInput, match=r"a.jsonl:1: a line of 100 bytes or more"):
        card().read(write(home, {"image": "x/a.png", "captions": ["a" * 100]}))


def test_paths_are_below_the_file_and_other_keys_are_kept(home: Path) -> None:
    data = write(
        home,
        {"image": "x/a.png", "captions": ["b"], "photographer": "c"},
        {"id": 7, "video": "id7", "frames": ["0.png", "1.png"]},
        {"video": "clip.mp4"},
    )
    image, frames, video = card().read(data)
    assert image.pictures == (home / "x" / "a.png",)
    assert image.meta == {"photographer": "c"}
    assert frames.pictures == (home / "0.png", home / "1.png")
    assert frames.video == "id7"
    assert video.video == str(home / "clip.mp4")
    assert [image.id, frames.id, video.id] == ["1", "7", "3"]


def test_an_id_that_is_there_twice(home: Path) -> None:
    with pytest.raises(BadInput, match=r"a.jsonl:2: id '5' is there twice in split 'train' of dataset own"):
        card().read(write(home, {"id": 5, "image": "0.png"}, {"id": "5", "image": "1.png"}))


def test_the_same_id_in_two_splits(home: Path) -> None:
    data = write(home, {"id": "5", "image": "0.png"}, {"id": "5", "image": "1.png", "split": "val"})
    assert [e.split for e in card(splits={"train": 1, "val": 1}).read(data)] == ["train", "val"]


def test_missing_files_are_counted_and_named(home: Path) -> None:
    lines = [{"image": f"{number}.png"} for number in range(7)]
    expected = "5 of 7 files of dataset own are missing, such as 2.png, 3.png, 4.png"
    with pytest.raises(BadInput, match=expected):
        card().read(write(home, *lines))
    assert len(card().read(home.parent, limit=2)) == 2  # only what is asked for


def test_another_number_of_examples_than_the_card_says(home: Path) -> None:
    data = write(home, {"image": "0.png"}, {"image": "1.png"})
    counted = card(splits={"train": 3})
    with pytest.raises(BadInput, match="split 'train' of dataset own has 2 examples, expected 3"):
        counted.read(data)
    assert len(counted.read(data, limit=2)) == 2


def test_splits(tmp_path: Path) -> None:
    squares = load_card(str(tiny.write_data(tmp_path)))
    assert len(squares.read(tmp_path, "train")) == squares.splits["train"]
    assert len(squares.read(tmp_path)) == 16
    with pytest.raises(BadInput, match=r"squares: no split 'test'; it has train, val"):
        squares.read(tmp_path, "test")
    with pytest.raises(BadInput, match=r"elsewhere.squares: no such folder; dataset squares comes from made by"):
        squares.read(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"squares needs a data folder; it comes from"):
        squares.read(None)
    annotations = tmp_path / "squares" / "captions.jsonl"
    annotations.write_text(annotations.read_text().replace('"val"', '"train"'))
    with pytest.raises(BadInput, match=r"captions.jsonl: no example of split 'val'"):
        squares.read(tmp_path, "val")
    annotations.unlink()
    with pytest.raises(BadInput, match=r"captions.jsonl: no such annotation file"):
        squares.read(tmp_path, "train")


def test_a_file_a_split(home: Path) -> None:
    (home / "val.jsonl").write_text('{"image": "0.png"}\n')
    (example,) = card(annotations="{split}.jsonl", splits={"val": 1}).read(home.parent, "val")
    assert example.split == "val"
    (example,) = card(annotations="{split}.jsonl", splits={"held": 1}, names={"held": "val"}).read(home.parent)
    assert example.split == "held"


def test_several_files(home: Path) -> None:
    for part in ("easy", "hard"):
        (home / f"test_{part}.jsonl").write_text(json.dumps({"picture": "0.png", "q": part, "a": 1}) + "\n")
    fields = {"image": "picture", "question": "q", "answers": "a"}
    examples = card(annotations="test_*.jsonl", fields=fields).read(home.parent)
    assert [(e.id, e.question, e.meta["part"]) for e in examples] == [
        ("easy/1", "easy", "easy"),
        ("hard/1", "hard", "hard"),
    ]
    with pytest.raises(BadInput, match=r"dev_\*.jsonl: no file matches"):
        card(annotations="dev_*.jsonl", fields=fields).read(home.parent)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ({"kind": "a"}, ["1", "3"]),
        ({"kind": ["a", "b"]}, ["1", "2", "3"]),
        ({"note?": "*"}, ["2"]),
        ({"number": 2}, ["2", "3"]),
    ],
)
def test_where(home: Path, where: dict[str, Any], ids: list[str]) -> None:
    data = write(
        home,
        {"image": "0.png", "kind": "a", "note": None, "number": 1},
        {"image": "0.png", "kind": "b", "note": "n", "number": 2},
        {"image": "0.png", "kind": "a", "number": 2},
        {"image": "0.png", "kind": "c", "note": "", "number": 3},
    )
    assert [example.id for example in card(where=where).read(data)] == ids


def test_records_of_one_picture_are_one_example(home: Path) -> None:
    rows = [("0.png", "a"), ("1.png", "b"), ("0.png", "c")]
    data = write(home, *({"file": file, "text": text} for file, text in rows))
    grouped = card(fields={"image": "file", "captions": "text"}, group="file")
    assert [(e.id, e.captions) for e in grouped.read(data)] == [("0.png", ("a", "c")), ("1.png", ("b",))]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"format": "xml"}, "xml"),
        ({"format": {"name": "csv", "sheet": 1}}, "sheet"),
        ({"format": "csv"}, "format csv needs fields"),
        ({"fields": {"picture": "a"}}, "fields.picture"),
        ({"splits": {"train": "many"}}, "splits.train"),
        ({"classes": "nothing"}, "unknown list of names 'nothing'"),
        ({"classes": "absent.txt"}, "absent.txt: not a file of names"),
    ],
)
def test_a_card_that_does_not_fit(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    given = {"name": "own", "about": "a", "licence": "l", "source": "s", "folder": "f", "annotations": "a"}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**given, "splits": {"train": None}, **keys}))
    with pytest.raises(BadInput) as caught:
        load_card(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_classes_in_a_file_beside_the_card(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\ngreat dane \n")
    given = {"name": "own", "about": "a", "licence": "l", "source": "s", "folder": "f", "annotations": "a"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**given, "splits": {"x": None}, "classes": "names.txt"}))
    assert load_card(str(tmp_path / "own.yaml")).classes == ("cat", "great dane")


def test_the_files_of_an_example() -> None:
    assert Example(video="a.mp4").files == (Path("a.mp4"),)
    assert Example(video="a", frames=(Path("0.png"),)).files == (Path("0.png"),)

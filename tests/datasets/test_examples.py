from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from vlm.assets import cards
from vlm.datasets.examples import load_card, read_jsonl
from vlm.errors import BadInput


@pytest.mark.parametrize("name", cards("data"))
def test_every_dataset_card_loads(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.licence
    assert card.source
    assert card.splits
    assert min(card.splits.values()) > 0
    assert Path(card.annotations).suffix == ".jsonl"


@pytest.mark.parametrize("name", cards("data"))
def test_every_dataset_reads_as_many_examples_as_its_card_says(name: str, shared: Path) -> None:
    card = load_card(name)
    if not (shared / "data" / card.folder).is_dir():
        pytest.skip(f"{card.folder} is not on this machine")
    for split, count in card.splits.items():
        examples = card.read(shared / "data", split)
        assert len(examples) == count
        assert all(picture.is_file() for example in examples[:20] for picture in example.pictures)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{not json", "not JSON"),
        (b'{"image": "\xff\xfe.png"}', "not JSON"),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b'{"captions": ["a"]}', "expected one of image, video, frames"),
        (b'{"image": "a.png", "captions": 7}', "captions"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"image": "a.png"}\n\n' + line + b"\n")
    with pytest.raises(BadInput) as caught:
        read_jsonl(path)
    assert f"{path}:3" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_are_absolute_and_other_keys_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"image": "x/a.png", "captions": ["b"], "photographer": "c"}\n'
        '{"video": "id7", "frames": ["f/0.jpg", "f/1.jpg"]}\n'
        '{"video": "clip.mp4"}\n'
    )
    image, frames, video = read_jsonl(path)
    assert image.pictures == (tmp_path / "x" / "a.png",)
    assert image.meta == {"photographer": "c"}
    assert frames.pictures == (tmp_path / "f" / "0.jpg", tmp_path / "f" / "1.jpg")
    assert frames.video == "id7"
    assert video.video == str(tmp_path / "clip.mp4")


def test_splits(tmp_path: Path) -> None:
    card = load_card(str(tiny.write_data(tmp_path)))
    assert len(card.read(tmp_path, "train")) == card.splits["train"]
    assert len(card.read(tmp_path)) == sum(card.splits.values())
    with pytest.raises(BadInput, match=r"squares: no split 'test'; it has train, val"):
        card.read(tmp_path, "test")
    with pytest.raises(BadInput, match=r"captions.jsonl: no such annotation file"):
        card.read(tmp_path / "elsewhere")
    annotations = tmp_path / "squares" / "captions.jsonl"
    annotations.write_text(annotations.read_text().replace('"val"', '"train"'))
    with pytest.raises(BadInput, match=r"captions.jsonl: no example of split 'val'"):
        card.read(tmp_path, "val")

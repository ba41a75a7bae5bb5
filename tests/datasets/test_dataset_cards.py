"""Every data set card loads, and reads what its authors publish: a few records in their files, or the real thing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import original_files
import originals
import pytest
from PIL import Image
from recent_expected import RECENT

from vlm.assets import cards
from vlm.datasets.examples import DatasetCard, Example, load_card
from vlm.evaluation.card import load_card as load_benchmark


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLM_OFFLINE", "1")


def uncounted(card: DatasetCard) -> DatasetCard:
    """The card without the counts of the whole data set."""
    return card.model_copy(update={"splits": dict.fromkeys(card.splits)})


def read(name: str, folder: Path, split: str) -> list[Example]:
    card = load_card(name)
    originals.WRITERS[name](folder / card.folder)
    return uncounted(card).read(folder, split)


@pytest.mark.parametrize("name", cards("data"))
def test_every_card_loads(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.about.endswith(".")
    assert card.licence
    assert card.source
    assert card.splits
    assert all(count is None or count > 0 for count in card.splits.values())
    assert set(card.names) <= set(card.splits)


@pytest.mark.parametrize("name", originals.WRITERS)
def test_every_card_reads_the_original_files(name: str, tmp_path: Path) -> None:
    card = load_card(name)
    originals.WRITERS[name](tmp_path / card.folder)
    for split in card.splits:
        examples = uncounted(card).read(tmp_path, split)
        assert len({example.id for example in examples}) == len(examples)
        assert all(file.is_file() for example in examples for file in example.files)
        assert all(example.split == split for example in examples)
        for picture in (picture for example in examples for picture in example.pictures):
            with Image.open(picture) as opened:
                opened.load()
        assert uncounted(card).read(tmp_path, split, limit=1) == examples[:1]


@pytest.mark.parametrize("name", cards("data"))
def test_every_card_reads_the_real_data(name: str, shared: Path) -> None:
    card = load_card(name)
    if not (shared / "data" / card.folder).is_dir():
        pytest.skip(f"{card.folder} is not on this machine")
    for split in card.splits:
        assert card.read(shared / "data", split)


EXPECTED: list[tuple[str, str, dict[str, Any]]] = [
    ("flickr30k", "test", {"id": "2", "captions": ("A picture of 2.", "A second.")}),
    ("coco_karpathy", "test", {"id": "391897", "captions": ("A picture of 2.", "A second.")}),
    ("coco_captions", "val", {"id": "139", "captions": ("A room.", "A table and a chair.")}),
    ("nocaps", "val", {"id": "139", "meta": {"domain": "out-domain"}}),
    (
        "vqav2",
        "val",
        {
            "id": "262148000",
            "question": "Where is he looking?",
            "answers": ("down",) * 10,
            "meta": {"answer_type": "other", "question_type": "where is"},
        },
    ),
    ("ok_vqa", "train", {"id": "262148000", "question": "Where is he looking?", "answers": ("down",) * 10}),
    ("gqa", "testdev", {"id": "201307251", "answers": ("no",), "meta": {"structural": "verify", "semantic": "attr"}}),
    ("textvqa", "val", {"id": "34602", "question": "what is the brand?", "answers": ("nokia",) * 10}),
    ("docvqa", "val", {"id": "24581", "answers": ("8 May", "May 8")}),
    ("chartqa", "test", {"id": "augmented/1", "answers": ("14",), "meta": {"part": "augmented"}}),
    ("vizwiz", "val", {"id": "VizWiz_val_00000000.jpg", "answers": ("unanswerable",) * 10}),
    ("pope", "test", {"id": "adversarial/1", "answers": ("yes",), "meta": {"part": "adversarial"}}),
    (
        "scienceqa",
        "test",
        {"id": "3", "question": "Look.\nWhich is red?", "options": ("left", "right"), "answers": ("B",)},
    ),
    ("mmmu", "val", {"id": "validation_Accounting_0", "options": ("$6", "it's $7", "$8"), "answers": ("B",)}),
    ("mmbench", "dev", {"id": "241", "question": "Look\tclosely.\nWhich is it?", "answers": ("A",)}),
    ("mmstar", "val", {"id": "0", "options": ("a", "b", "c", "d"), "answers": ("C",)}),
    ("easy_vqa", "test", {"id": "1", "question": "what is the red shape?", "answers": ("triangle",)}),
    ("imagenet_1k", "val", {"answers": ("goldfish",)}),
    ("cifar10", "train", {"id": "_1/0", "answers": ("frog",)}),
    ("cifar10", "test", {"id": "0", "answers": ("cat",)}),
    ("pneumoniamnist", "test", {"id": "0", "answers": ("pneumonia",)}),
    ("msrvtt_1ka", "test", {"id": "video7020", "captions": ("a woman, number 7020",)}),
    ("msrvtt", "test", {"id": "video7020", "captions": ("1 of 7020", "2 of 7020")}),
    ("msvd", "test", {"id": "fWutDQy1nnY_29_35", "captions": ("a man runs", "he runs")}),
    ("vatex", "test", {"captions": ("One.", "Two.")}),
    (
        "next_qa",
        "val",
        {
            "id": "4010069381_6",
            "question": "how do the men play?",
            "options": ("roll", "tap, twice", "strum", "hit", "pat"),
            "answers": ("A",),
            "meta": {"type": "CH"},
        },
    ),
    (
        "qvhighlights",
        "test",
        {
            "id": "2579",
            "question": "A girl cooks.",
            "meta": {
                "windows": [[82, 86], [100, 150]],
                "duration": 150,
                "clips": [41, 42],
                "saliency": [[1, 1, 2], [1, 1, 3]],
            },
        },
    ),
]


EXPECTED += RECENT


@pytest.mark.parametrize(("name", "split", "expected"), EXPECTED, ids=[f"{e[0]}-{e[1]}" for e in EXPECTED])
def test_what_is_read(name: str, split: str, expected: dict[str, Any], tmp_path: Path) -> None:
    first = read(name, tmp_path, split)[0]
    assert {key: getattr(first, key) for key in expected} == expected


def test_the_whole_list_of_what_is_read_is_covered() -> None:
    assert {name for name, _, _ in EXPECTED} == set(originals.WRITERS)


def test_a_picture_keeps_its_pixels(tmp_path: Path) -> None:
    """CIFAR's planes become rows of colours; a picture in a table is the same bytes in the cache."""
    (path,) = read("cifar10", tmp_path, "test")[0].pictures
    record = (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").read_bytes()[1:3073]
    with Image.open(path) as opened:
        red, green, blue = opened.split()
    assert red.tobytes() + green.tobytes() + blue.tobytes() == record
    (path,) = read("mmstar", tmp_path, "val")[0].pictures
    assert path.read_bytes() == original_files.picture(0, "JPEG")
    assert path.suffix == ".jpg"


def test_questions_with_several_pictures(tmp_path: Path) -> None:
    one, two = read("mmmu", tmp_path, "val")[:2]
    assert (len(one.pictures), len(two.pictures)) == (1, 2)
    assert one.image is not None
    assert two.image is None
    assert two.meta == {"subject": "Accounting", "subfield": "Managerial", "difficulty": "Easy", "part": "Accounting"}


def test_options_that_are_not_there_and_rows_that_repeat(tmp_path: Path) -> None:
    four, two = read("mmbench", tmp_path, "dev")
    assert four.options == ("one", "two", "three", "four")
    assert two.options == ("yes", "no")
    assert two.question == 'Is it "red"?'


def test_daquar_reads_several_things_as_one_answer(shared: Path) -> None:
    answers = [example.answers for example in load_card("daquar").read(shared / "data")]
    assert ("garbage bin",) in answers
    assert ("book, scissor, papers, tape dispenser",) in answers
    assert all(len(answer) == 1 and "_" not in answer[0] for answer in answers)


def test_the_cards_that_contributing_shows(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    assert len(shown) == 2
    for number, content in enumerate(shown):
        (tmp_path / f"{number}.yaml").write_text(content)
    originals.chartqa(tmp_path / "chartqa")
    examples = uncounted(load_card(str(tmp_path / "0.yaml"))).read(tmp_path, "test")
    assert examples == uncounted(load_card("chartqa")).read(tmp_path, "test")
    assert load_benchmark(str(tmp_path / "1.yaml")).prompts == load_benchmark("chartqa").prompts[:1]

"""How pictures are read stands in one file or in three: the model is the same."""

from __future__ import annotations

import json
from pathlib import Path

import dual
import folders
import pytest
import torch
from folders import TRANSFORMERS
from transformers import AutoImageProcessor, AutoTokenizer, CLIPProcessor, Siglip2Processor, SiglipProcessor

import vlm
from vlm.errors import BadInput
from vlm.vision.processor_files import read_processor
from vlm.vision.towers import load

PROCESSORS = {"clip": CLIPProcessor, "siglip": SiglipProcessor, "siglip2": Siglip2Processor}
OLD, NEW = "preprocessor_config.json", "processor_config.json"


def in_one_file(folder: Path) -> None:
    """As transformers 5 saves a processor: what was in a file of its own is a key."""
    images = json.loads((folder / OLD).read_text())
    (folder / OLD).unlink()
    (folder / NEW).write_text(json.dumps({"image_processor": images, "processor_class": "SomeProcessor"}))


@pytest.mark.parametrize("kind", PROCESSORS)
def test_what_save_pretrained_writes_is_a_model(tmp_path: Path, kind: str) -> None:
    dual.save_dual(tmp_path / "old", kind)
    before = vlm.load(tmp_path / "old")
    dual.save_dual(tmp_path / "new", kind)
    images = AutoImageProcessor.from_pretrained(tmp_path / "new")
    processor = PROCESSORS[kind](images, AutoTokenizer.from_pretrained(tmp_path / "new"))
    (tmp_path / "new" / OLD).unlink()
    processor.save_pretrained(tmp_path / "new")
    if not (tmp_path / "new" / NEW).is_file():
        pytest.skip("this transformers writes the old files")
    assert not (tmp_path / "new" / OLD).exists()
    after, pictures = vlm.load(tmp_path / "new"), folders.photographs()
    assert torch.equal(torch.tensor(after.embed_images(pictures)), torch.tensor(before.embed_images(pictures)))
    assert torch.equal(torch.tensor(after.embed_texts(["a cat"])), torch.tensor(before.embed_texts(["a cat"])))


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_towers(tmp_path: Path, kind: str) -> None:
    folders.save_transformers(tmp_path, *TRANSFORMERS[kind])
    before = load(tmp_path)
    in_one_file(tmp_path)
    after = load(tmp_path)
    assert after.cfg == before.cfg
    seen, expected = (tower(tower.preprocess(folders.photographs())) for tower in (after, before))
    assert torch.equal(seen.pooled_BD, expected.pooled_BD)


def test_the_one_file_counts_before_the_others(tmp_path: Path) -> None:
    """As for transformers itself."""
    folders.save_transformers(tmp_path, *TRANSFORMERS["clip"])
    old = json.loads((tmp_path / OLD).read_text())
    in_one_file(tmp_path)
    (tmp_path / OLD).write_text(json.dumps({**old, "image_mean": [0.1, 0.2, 0.3]}))
    assert load(tmp_path).cfg.mean != (0.1, 0.2, 0.3)
    (tmp_path / NEW).write_text(json.dumps({"processor_class": "CLIPProcessor"}))  # it says nothing of pictures
    assert load(tmp_path).cfg.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("name", [OLD, NEW])
def test_the_file_that_is_wrong_is_named(tmp_path: Path, name: str) -> None:
    folders.save_transformers(tmp_path, *TRANSFORMERS["clip"])
    old = json.loads((tmp_path / OLD).read_text())
    (tmp_path / OLD).write_text(json.dumps({**old, "do_resize": False}))
    if name == NEW:
        in_one_file(tmp_path)
    with pytest.raises(BadInput, match=rf"{tmp_path.name}/{name}: key do_resize: expected True, got False"):
        load(tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(BadInput, match=f"{name}: not a JSON file"):
        load(tmp_path)


def test_without_any_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"{OLD}: no such file, and no {NEW}"):
        read_processor(tmp_path)
    (tmp_path / NEW).write_text('{"processor_class": "CLIPProcessor"}')
    folders.save_transformers(tmp_path, *TRANSFORMERS["clip"])
    (tmp_path / OLD).unlink()
    with pytest.raises(BadInput, match="not a checkpoint of transformers"):
        load(tmp_path)

"""The samples that ship: each is listed with its licence, and each can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm.assets import root
from vlm.config import Config, parse, read_yaml
from vlm.media.images import is_image, list_media, load_image
from vlm.media.video.sampling import load_clip

FOLDER = root() / "data" / "samples"


class Question(Config):
    question: str
    answer: str


class Sample(Config):
    file: str
    caption: str
    questions: list[Question]
    licence: str
    source: str


SAMPLES = [parse(Sample, item, "samples.yaml") for item in read_yaml(FOLDER / "samples.yaml")]


def test_the_list_and_the_folder_agree() -> None:
    assert sorted(sample.file for sample in SAMPLES) == [path.name for path in list_media(FOLDER)]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [sample.file for sample in SAMPLES if f"`{sample.file}`" not in readme] == []


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.file)
def test_each_sample_is_small_and_readable(sample: Sample) -> None:
    path: Path = FOLDER / sample.file
    notes: list[str] = []
    frames = [load_image(path, notes=notes)] if is_image(path) else load_clip(path, n=4).frames
    assert max(frames[0].size) <= 512
    assert notes == []
    assert sample.questions
    assert path.stat().st_size < 300_000

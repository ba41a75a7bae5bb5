"""The one example schema, and dataset cards.

A data set is a folder with a JSON-lines file, one example a line, paths relative to the folder:
`{"image": ... | "video": ... | "frames": [...], "captions": [...], "question": ..., "answers": [...], "split": ...}`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from vlm import assets, config
from vlm.config import Config
from vlm.errors import BadInput


class Example(Config):
    """A picture or a clip with captions, or with a question and its answers."""

    id: str = ""
    """Unique within a split; the annotation file's line where the data set has no ids of its own."""
    image: Path | None = None
    video: str | None = None
    frames: tuple[Path, ...] = ()
    captions: tuple[str, ...] = ()
    question: str | None = None
    answers: tuple[str, ...] = ()
    """Every annotator's answer; the letters of the right options; the class."""
    options: tuple[str, ...] = ()
    """Texts of a multiple choice, "A" first."""
    split: str = "train"
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_source(self) -> Example:
        if self.image is None and self.video is None and not self.frames:
            raise ValueError("expected one of image, video, frames")
        return self

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The picture files: one for an image, the frames in order for a clip that comes as frames."""
        return (self.image,) if self.image is not None else self.frames


class DatasetCard(Config):
    """What a data set is, under which terms, and where its files lie below the data folder."""

    name: str
    about: str
    licence: str
    source: str
    folder: str
    annotations: str
    splits: dict[str, int]

    def read(self, data: Path, split: str | None = None) -> list[Example]:
        """The examples of one split (all by default) from the folder `data / self.folder`.

        Raises `BadInput` naming the file and line where the folder, a key or a split is wrong.
        """
        if split is not None and split not in self.splits:
            raise BadInput(f"dataset {self.name}: no split {split!r}; it has {', '.join(self.splits)}")
        folder = data / self.folder
        examples = read_jsonl(folder / self.annotations)
        chosen = [example for example in examples if split in (None, example.split)]
        if not chosen:
            raise BadInput(f"{folder / self.annotations}: no example" + (f" of split {split!r}" if split else ""))
        return chosen


def data_folder(path: str | None) -> Path:
    """The folder of data sets: the recipe's, or `$VLM_DATA`."""
    named = path or os.environ.get("VLM_DATA")
    if not named:
        raise BadInput("no data folder: give data=FOLDER (or set VLM_DATA); data/*.yaml say what belongs there")
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such data folder")
    return folder


def load_card(name_or_path: str) -> DatasetCard:
    return config.load(DatasetCard, assets.find_card("data", name_or_path, "dataset"))


def read_jsonl(path: Path) -> list[Example]:
    """Every example of a JSON-lines file, its paths made absolute; keys beyond the schema go to `meta`."""
    if not path.is_file():
        raise BadInput(f"{path}: no such annotation file (is the data folder right?)")
    examples = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                examples.append(_example(line, path, number))
    return examples


def _example(line: bytes, path: Path, number: int) -> Example:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}:{number}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadInput(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
    known = {key: row[key] for key in row if key in Example.model_fields and key != "meta"}
    rest = {key: row[key] for key in row if key not in known}
    example = config.parse(Example, {**known, "meta": rest}, f"{path}:{number}")
    image = path.parent / example.image if example.image is not None else None
    # A "video" may be an identifier whose frames are listed, or a file.
    video = str(path.parent / example.video) if example.video and not example.frames else example.video
    frames = tuple(path.parent / frame for frame in example.frames)
    paths = {"image": image, "video": video, "frames": frames}
    return example.model_copy(update={**paths, "id": example.id or str(number)})

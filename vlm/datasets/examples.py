"""The one example schema, and data set cards: what a set is, where it is from, and how its own files are read.

A card names the files (`annotations`), their `format` and which keys hold what (`fields`). Without `fields`, the files
are JSON lines of our own schema, paths relative to the file:
`{"image": ... | "video": ... | "frames": [...], "captions": [...], "question": ..., "answers": [...], "split": ...}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any
from warnings import warn

from pydantic import Field, model_validator

from vlm import assets, config
from vlm.config import Config
from vlm.datasets.readers import AnyFormat
from vlm.datasets.readers.fields import Fields
from vlm.datasets.readers.jsonfiles import Jsonl
from vlm.datasets.readers.media import inside
from vlm.datasets.readers.rows import Row, pick
from vlm.datasets.readers.wheel import Wheel
from vlm.datasets.zero_shot_metadata import named_list
from vlm.errors import BadInput
from vlm.notes import Notes

_BELOW = re.compile(r"<(\d+)")


class Exchange(Config):
    """A turn of a conversation: a question, and the answers that are right."""

    question: str
    answers: tuple[str, ...] = ()


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
    turns: tuple[Exchange, ...] = ()
    """Questions that follow one another, each after the replies before it."""
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
        """The picture files: one for an image, in order for a clip or a question that comes with several."""
        return (self.image,) if self.image is not None else self.frames

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is about: pictures, else the clip."""
        return self.pictures or (Path(str(self.video)),)


class DatasetCard(Config):
    """What a data set is, under which terms, where its files lie below the data folder, and how they are read."""

    name: str
    about: str
    licence: str
    source: str
    """The paper and the official page."""
    hub: str | None = None
    """A repository of the hub that has the same files."""
    wheel: Wheel | None = None
    """A Python package that carries them: used where the data folder has none."""
    folder: str
    annotations: str
    """The file (or for format `folder` the folder) below `folder`; `{split}` is filled in, `*` matches several."""
    format: AnyFormat = Jsonl()
    images: str | None = None
    """Where pictures and clips lie below `folder`; by default beside the annotations. `{split}` is filled in."""
    fields: Fields | None = None
    splits: dict[str, int | None]
    """Split -> how many examples, or null where that is not known."""
    names: dict[str, str] = Field(default_factory=dict)
    """Split -> what the files call it, where they call it something else."""
    where: dict[str, str | int | bool | list[str]] = Field(default_factory=dict)
    """Only records whose key has this value, or one of these; `"*"` is any but null and empty, `"<9"` a number."""
    group: str | None = None
    """Records that agree in this expression are one example, with all their captions."""
    classes: tuple[str, ...] = ()
    """Class names in the order of their numbers: in a file a list, a name of `datasets/zero_shot_metadata.py` or a
    `.txt` file."""

    @model_validator(mode="after")
    def _has_fields(self) -> DatasetCard:
        if self.fields is None and not isinstance(self.format, Jsonl) and not self.format.defaults:
            raise ValueError(f"format {self.format.name} needs fields: which keys hold the picture, the question ...")
        return self

    def read(
        self,
        data: Path | None,
        split: str | None = None,
        limit: int | None = None,
        report: Callable[[str], None] = warn,
    ) -> list[Example]:
        """The examples of one split (all by default), in the files' order; of each split at most `limit`.

        The files are in `data / self.folder`, or in the card's wheel. Raises `BadInput` that names file, record and
        key for a record that does not fit, an id that is there twice, another number of examples than the card's, and
        pictures or clips that are missing (how many, and the first three). Of a format that is lenient, such records
        are left out, such ids get a number, and `report` gets a line of each kind.
        """
        if split is not None and split not in self.splits:
            raise BadInput(f"dataset {self.name}: no split {split!r}; it has {', '.join(self.splits)}")
        home, notes = self._home(data), Notes()
        found = [e for name in ([split] if split else self.splits) for e in self._read_split(home, name, limit, notes)]
        for line in notes.lines():
            report(line)
        return found

    def _home(self, data: Path | None) -> Path:
        folder = data / self.folder if data is not None else None
        if folder is not None and folder.is_dir():
            return folder
        if self.wheel is not None:
            return self.wheel.unpacked(self.name)
        hub = f"; on the hub: {self.hub}" if self.hub else ""
        if folder is None:
            raise BadInput(f"dataset {self.name} needs a data folder; it comes from {self.source}{hub}")
        raise BadInput(f"{folder}: no such folder; dataset {self.name} comes from {self.source}{hub}")

    def _read_split(self, home: Path, split: str, limit: int | None, notes: Notes) -> list[Example]:
        examples: dict[str, Example] = {}
        found = self._examples(home, split, notes)
        for example, where in islice(_grouped(found) if self.group else found, limit):
            if example.id in examples:
                twice = f"id {example.id!r} is there twice in split {split!r} of dataset {self.name}"
                if not self.format.lenient:
                    raise BadInput(f"{where}: {twice}")
                notes.add(where, "an id that is there already, which gets a number")
                number = next(n for n in count(2) if f"{example.id}~{n}" not in examples)
                example = example.model_copy(update={"id": f"{example.id}~{number}"})
            examples[example.id] = example
        if not examples:
            why = f" ({notes.lines()[0]})" if notes else ""
            raise BadInput(f"{home / self._filled(self.annotations, split)}: no example of split {split!r}{why}")
        expected = self.splits[split]
        if limit is None and expected not in (None, len(examples)):
            raise BadInput(
                f"{home}: split {split!r} of dataset {self.name} has {len(examples)} examples, expected {expected}"
            )
        self._check_files(list(examples.values()), home)
        return list(examples.values())

    def _examples(self, home: Path, split: str, notes: Notes) -> Iterator[tuple[Example, str]]:
        """Each with where it is. Of a lenient format what cannot be used is noted."""
        fields = self._mapping()
        for row in self._rows(home, split, fields):
            try:
                if row.problem:
                    raise BadInput(row.problem)
                yield self._example(row, home, split, fields), row.where
            except BadInput as error:
                if not self.format.lenient:
                    raise
                notes.add(row.where, f"left out: {str(error).removeprefix(f'{row.where}: ')}")

    def _rows(self, home: Path, split: str, fields: Fields | None) -> Iterator[Row]:
        """The split's records that `where` lets through."""
        called = self.names.get(split, split)
        for row in self.format.rows(home, self.annotations, called):
            if fields is None:
                # A file of our schema without splits is all "train", unless the card has a file a split.
                own = row.values.get("split", called if "{split}" in self.annotations else "train")
            else:
                own = called if fields.split is None else pick(row, fields.split)
            if own == called and all(_passes(pick(row, key), wanted) for key, wanted in self.where.items()):
                yield row

    def _mapping(self) -> Fields | None:
        """The format's fields with the card's over them; None for our own schema."""
        if self.fields is None and not self.format.defaults:
            return None
        own = self.fields.model_dump(exclude_unset=True) if self.fields else {}
        return Fields.model_validate({**self.format.defaults, **own})

    def _example(self, row: Row, home: Path, split: str, fields: Fields | None) -> Example:
        if fields is None:
            return _own_schema(row, split)
        media = row.folder if self.images is None else home / self._filled(self.images, split)
        found = fields.example(row, media, self.classes)
        if self.group is not None:
            found["id"] = str(pick(row, self.group))
        return config.parse(Example, {**found, "split": split}, row.where)

    def _filled(self, text: str, split: str) -> str:
        return text.replace("{split}", self.names.get(split, split))

    def _check_files(self, examples: list[Example], home: Path) -> None:
        files = dict.fromkeys(file for example in examples for file in example.files)
        missing = [file for file in files if not file.is_file()]
        if missing:
            names = ", ".join(
                str(file.relative_to(home) if file.is_relative_to(home) else file) for file in missing[:3]
            )
            raise BadInput(
                f"{home}: {len(missing)} of {len(files)} files of dataset {self.name} are missing, such as {names}"
            )


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
    """A data set card by name or path, with the list of classes it names."""
    path = assets.find_card("data", name_or_path, "dataset")
    data = config.read_yaml(path)
    if isinstance(data, dict) and isinstance(data.get("classes"), str):
        data = {**data, "classes": named_list(data["classes"], path.parent)}
    return config.parse(DatasetCard, data, str(path))


def _own_schema(row: Row, split: str) -> Example:
    """A line of our own schema; keys beyond it go to `meta`."""
    known = {key: row.values[key] for key in row.values if key in Example.model_fields and key != "meta"}
    rest = {key: row.values[key] for key in row.values if key not in known}
    known |= {"id": str(known.get("id", row.id)), "split": split}
    example = config.parse(Example, {**known, "meta": rest}, row.where)
    image = inside(row.folder, str(example.image), row.where) if example.image is not None else None
    # A "video" may be an identifier whose frames are listed, or a file.
    named = example.video is not None and not example.frames
    video = str(inside(row.folder, str(example.video), row.where)) if named else example.video
    frames = tuple(inside(row.folder, str(frame), row.where) for frame in example.frames)
    return example.model_copy(update={"image": image, "video": video, "frames": frames})


def _grouped(found: Iterable[tuple[Example, str]]) -> Iterator[tuple[Example, str]]:
    """The first example of each id, with the captions of all."""
    groups: dict[str, list[tuple[Example, str]]] = {}
    for example, where in found:
        groups.setdefault(example.id, []).append((example, where))
    for group in groups.values():
        captions = tuple(caption for example, _ in group for caption in example.captions)
        yield group[0][0].model_copy(update={"captions": captions}), group[0][1]


def _passes(value: Any, wanted: str | int | bool | list[str]) -> bool:
    if wanted == "*":
        return value is not None and value != ""
    if isinstance(wanted, str) and (bound := _BELOW.fullmatch(wanted)):
        return str(value).isdecimal() and int(value) < int(bound[1])
    return str(value) in (wanted if isinstance(wanted, list) else [str(wanted)])

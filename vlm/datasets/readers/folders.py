"""Pictures in folders, one a class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlm.datasets.readers.rows import Format, Row
from vlm.errors import BadInput
from vlm.media.kinds import kind_of_name


class Folder(Format):
    """`CLASS/NAME.png` below the card's `annotations`. `label` is the folder's name, `index` its place in order."""

    defaults: ClassVar[dict[str, Any]] = {"image": "image", "answers": "label"}

    name: Literal["folder"] = "folder"
    classes: int | None = None
    """How many folders there must be: where `index` names the class, one that is missing would shift all others."""

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        if not path.is_dir():
            raise BadInput(f"{path}: expected a folder of one folder a class")
        folders = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
        if not folders or self.classes not in (None, len(folders)):
            raise BadInput(f"{path}: {len(folders)} class folders; expected {self.classes or 'at least one'}")
        for index, folder in enumerate(folders):
            for picture in sorted(folder.iterdir()):
                kind = kind_of_name(picture)
                if kind is not None and kind.pillow:
                    name = f"{folder.name}/{picture.name}"
                    yield Row({"image": name, "label": folder.name, "index": index}, f"{path}: {name}", name, path)

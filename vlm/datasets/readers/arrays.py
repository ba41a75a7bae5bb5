"""Pictures as arrays of pixels: NumPy archives, and CIFAR's binary files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from vlm.datasets.readers.rows import Format, Row
from vlm.errors import BadInput

MAX_ARRAY_BYTES = 16 * 2**30


class Npz(Format):
    """Arrays `{split}_images` `[N, H, W]` or `[N, H, W, 3]` and `{split}_labels` `[N]` or `[N, 1]` (MedMNIST)."""

    defaults: ClassVar[dict[str, Any]] = {"image": "image", "answers": "label"}

    name: Literal["npz"] = "npz"
    images: str = "{split}_images"
    labels: str = "{split}_labels"

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        names = [template.replace("{split}", split) for template in (self.images, self.labels)]
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > MAX_ARRAY_BYTES:
                raise BadInput(f"{path}: arrays of {size} bytes; expected at most {MAX_ARRAY_BYTES}")
            with np.load(path, allow_pickle=False) as arrays:
                if missing := [name for name in names if name not in arrays]:
                    raise BadInput(f"{path}: no array {missing[0]!r}; it has {', '.join(arrays.files) or 'none'}")
                images, labels = arrays[names[0]], arrays[names[1]]
        except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            raise BadInput(f"{path}: not an archive of plain arrays: {error}") from None
        if labels.ndim == 0 or labels.size != len(labels) or labels.dtype.kind not in "iu":
            raise BadInput(f"{path}: {names[1]} is {labels.dtype} {list(labels.shape)}; expected whole numbers [N]")
        if images.ndim == 0 or len(images) != len(labels):
            raise BadInput(f"{path}: {names[0]} is {list(images.shape)}; expected {len(labels)} pictures, as labels")
        for number, (pixels, label) in enumerate(zip(images, labels.reshape(-1), strict=True)):
            yield Row({"image": pixels, "label": int(label)}, f"{path}: picture {number}", str(number), path.parent)


class Cifar(Format):
    """CIFAR's "binary version": records of `label_bytes` bytes (the last is the class) and 3 x 32 x 32 pixels.

    The version for Python is a pickle, which can run code, and is not read.
    """

    defaults: ClassVar[dict[str, Any]] = {"image": "image", "answers": "label"}

    name: Literal["cifar"] = "cifar"
    label_bytes: Literal[1, 2] = 1

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        try:
            if path.stat().st_size > MAX_ARRAY_BYTES:
                raise BadInput(f"{path}: {path.stat().st_size} bytes; expected at most {MAX_ARRAY_BYTES}")
            content = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
        width = self.label_bytes + 3 * 32 * 32
        if len(content) == 0 or len(content) % width:
            raise BadInput(f"{path}: {len(content)} bytes; expected a multiple of {width}")
        for number, record in enumerate(content.reshape(-1, width)):
            pixels = record[self.label_bytes :].reshape(3, 32, 32).transpose(1, 2, 0)
            label = int(record[self.label_bytes - 1])
            yield Row({"image": pixels, "label": label}, f"{path}: picture {number}", str(number), path.parent)

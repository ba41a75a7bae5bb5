"""WebDataset shards: tar files whose neighbouring members with one stem are a sample (`7.jpg`, `7.txt`, `7.json`)."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from vlm.datasets.readers.jsonfiles import parse_json
from vlm.datasets.readers.lazy_media import LazyMedia
from vlm.datasets.readers.media import MAX_MEDIA_BYTES
from vlm.datasets.readers.rows import Format, Row
from vlm.errors import BadInput

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
CLIPS = ("mp4", "webm")
TEXTS = ("txt", "cls", "caption")


class WebDataset(Format):
    """Read in one pass, member by member; nothing is unpacked under a name the archive chose.

    A sample's keys are the suffixes: `txt`, `cls` and `caption` are texts, `json` is what it holds, any picture is
    `image` and any clip is `video` (bytes); other members are passed over. The stem is the sample's id.
    """

    defaults: ClassVar[dict[str, Any]] = {"image": "image", "captions": "txt"}

    name: Literal["webdataset"] = "webdataset"

    in_place: ClassVar[bool] = False
    """Whether pictures and clips are `LazyMedia`, not bytes; an archive is not compressed then."""

    def rows(self, home: Path, annotations: str, split: str) -> Iterator[Row]:
        """The stem alone is the id, not the shard: a sample is the same however a set is cut into shards."""
        for row in super().rows(home, annotations, split):
            yield replace(row, id=row.values["@stem"])

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        sample: dict[str, Any] = {}
        try:
            with tarfile.open(path, "r:" if self.in_place else "r|*") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    stem, suffix = _split(member.name)
                    if sample and sample["@stem"] != stem:
                        yield Row(sample, f"{path}: sample {sample['@stem']}", sample["@stem"], path.parent)
                        sample = {}
                    sample.setdefault("@stem", stem)
                    self._add(sample, suffix, archive, member, f"{path}: member {member.name}")
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: not a whole tar file: {error}") from None
        if sample:
            yield Row(sample, f"{path}: sample {sample['@stem']}", sample["@stem"], path.parent)

    def _add(
        self, sample: dict[str, Any], suffix: str, archive: tarfile.TarFile, member: tarfile.TarInfo, where: str
    ) -> None:
        kind = suffix.rpartition(".")[2]
        key = "image" if kind in PICTURES else "video" if kind in CLIPS else suffix
        if key not in ("image", "video") and kind not in (*TEXTS, "json"):
            return
        if key in sample:
            raise BadInput(f"{where}: a second {key} of its sample")
        if member.size > MAX_MEDIA_BYTES:
            raise BadInput(f"{where}: {member.size} bytes; expected at most {MAX_MEDIA_BYTES}")
        if self.in_place and key in ("image", "video"):
            sample[key] = LazyMedia(str(archive.name), member.offset_data, member.size)
            return
        file = archive.extractfile(member)
        content = file.read() if file is not None else b""
        if key in ("image", "video"):
            sample[key] = content
        elif kind == "json":
            sample[key] = parse_json(content, where)
        else:
            try:
                sample[key] = content.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise BadInput(f"{where}: not UTF-8: {error}") from None


class WebDatasetInPlace(WebDataset):
    """Bytes are not read, only passed over."""

    in_place: ClassVar[bool] = True


def _split(name: str) -> tuple[str, str]:
    """`a/b.seg.png` -> `a/b`, `seg.png`: the stem ends at the first dot of the last part, as in webdataset."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, suffix.lower()

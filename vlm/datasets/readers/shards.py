"""WebDataset shards: tar files whose neighbouring members with one stem are a sample (`7.jpg`, `7.txt`, `7.json`)."""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from vlm.datasets.readers.jsonfiles import parse_json
from vlm.datasets.readers.lazy_media import LazyMedia
from vlm.datasets.readers.media import MAX_MEDIA_BYTES
from vlm.datasets.readers.rows import Format, Row
from vlm.errors import BadInput
from vlm.files import name_text
from vlm.media.kinds import HEAD_BYTES, Medium, kind_of, kind_of_name

TEXTS = ("txt", "cls", "caption")


class WebDataset(Format):
    """Read in one pass, member by member; nothing is unpacked under a name the archive chose.

    A sample's keys are the suffixes: `txt`, `cls` and `caption` are texts, `json` is what it holds, any picture is
    `image` and any clip is `video` (bytes); other members are passed over, and noted. The stem is the sample's id.

    The stem ends at the first dot, as in webdataset. Where more pictures have that stem (`22.05.jpg`, `22.06.jpg`),
    each is a row: `22.05` with `22.05.txt` for its own, and with what has no such name (`22.txt`) in common.
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
        sample: _Sample | None = None
        passed = Counter[str]()
        try:
            with tarfile.open(path, "r:" if self.in_place else "r|*") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    if (kind := _passed_over(member)) is not None:
                        passed[kind] += 1
                        continue
                    stem, suffix = _split(member.name)
                    if sample is not None and sample.stem != stem:
                        yield from sample.rows(path, passed)
                        passed.clear()
                        sample = None
                    sample = sample or _Sample(stem)
                    if (kind := self._add(sample, suffix, archive, member)) is not None:
                        passed[kind] += 1
                if not self._ended(path, archive.offset):
                    passed["archive without the mark at its end, which may be cut short"] += 1
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            if sample is not None and sample.media:  # what came before the damage is whole, but may miss a member
                yield from sample.rows(path, passed)
            raise BadInput(f"{path}: not a whole tar file: {error}") from None
        if sample is not None:
            yield from sample.rows(path, passed)

    @staticmethod
    def _ended(path: Path, end: int) -> bool:
        """Whether a block of zeros follows the last member: the library takes half a header for the end. Inside a
        compressed file this is not known, which has an end of its own."""
        with path.open("rb") as file:
            if kind_of(file.read(HEAD_BYTES)) is not None or file.seek(0, 2) == 0:
                return True
            file.seek(end)
            return file.read(512) == bytes(512)

    def _add(self, sample: _Sample, suffix: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
        """Take a member into its sample; what kind of member it is where it is passed over."""
        part, _, kind = suffix.rpartition(".")
        readable = kind in (*TEXTS, "json")
        file = archive.extractfile(member)
        head = file.read(HEAD_BYTES) if file is not None and not readable else b""
        found = None if readable else kind_of(head, member.name) or kind_of_name(member.name)
        medium = found.medium if found is not None else None
        if medium is None and not readable:
            return f"members {f'of .{name_text(kind)}' if kind else 'without a suffix'}, which are not read"
        if member.size > MAX_MEDIA_BYTES:
            where = f"member {name_text(member.name)}"
            sample.problem = f"{where}: {member.size} bytes; expected at most {MAX_MEDIA_BYTES}"
        elif medium is not None and self.in_place:
            sample.media.append((part, kind, medium, LazyMedia(str(archive.name), member.offset_data, member.size)))
        elif file is not None and medium is not None:
            sample.media.append((part, kind, medium, head + file.read()))
        elif file is not None:
            self._add_text(sample, suffix, file.read(), f"member {name_text(member.name)}")
        return None

    def _add_text(self, sample: _Sample, suffix: str, content: bytes, where: str) -> None:
        value: Any = content.decode("utf-8", "surrogateescape").strip()
        if suffix.rpartition(".")[2] == "json":
            try:
                value = parse_json(content, where)
            except BadInput as error:
                sample.lost.append(str(error))
                return
        elif any("\udc80" <= letter <= "\udcff" for letter in value):
            sample.doubts.append(f"{where}: not UTF-8")
        if suffix in sample.texts:
            sample.lost.append(f"{where}: a second {suffix} of its sample")
        sample.texts.setdefault(suffix, value)


@dataclass
class _Sample:
    """What the members of one stem hold. `media` has the part of a name between stem and suffix, the suffix, what it
    is, and the content."""

    stem: str
    media: list[tuple[str, str, Medium, bytes | LazyMedia]] = field(default_factory=list)
    texts: dict[str, Any] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    problem: str = ""

    def rows(self, path: Path, passed: Counter[str]) -> Iterator[Row]:
        """A row a picture or clip; a picture and a clip of one name are one row. Without either the texts are one."""
        rows: dict[str, dict[str, Any]] = {}
        doubts = list(self.doubts)
        for part, kind, medium, content in self.media:
            name = f"{self.stem}.{part}" if part else self.stem
            second = f"member {name_text(name)}.{kind}: a second {medium} of its sample"
            if medium in rows.get(name, {}):
                doubts.append(second)
                taken = (f"{name}.{kind}{n or ''}" for n in count())
                name = next(free for free in taken if medium not in rows.get(free, {}))
            elif name not in rows and rows and not any(key.startswith(f"{part}.") for key in self.texts):
                doubts.append(second)
            rows.setdefault(name, self._texts(part))[medium] = content
        for name, values in (rows or {self.stem: dict(self.texts)}).items():
            notes = tuple(f"{count} {what}" for what, count in sorted(passed.items()))
            where = f"{path}: sample {name_text(name)}"
            yield Row(
                {"@stem": name, **values},
                where,
                name,
                path.parent,
                problem=self.problem,
                lost=tuple(self.lost),
                doubts=tuple(doubts),
                notes=notes,
            )
            passed.clear()

    def _texts(self, part: str) -> dict[str, Any]:
        """Those of the picture itself over those that all pictures of the sample have."""
        start = f"{part}."
        own = {key.removeprefix(start): text for key, text in self.texts.items() if part and key.startswith(start)}
        others = {name for name, *_ in self.media if name}
        shared = {key: text for key, text in self.texts.items() if key.rpartition(".")[0] not in others}
        return {**shared, **own}


class WebDatasetInPlace(WebDataset):
    """Bytes are not read, only passed over."""

    in_place: ClassVar[bool] = True


def _passed_over(member: tarfile.TarInfo) -> str | None:
    """Links and devices, and what macOS puts beside each file (`._7.jpg`)."""
    parts = PurePosixPath(member.name).parts
    if "__MACOSX" in parts or any(part.startswith(".") and part not in (".", "..") for part in parts):
        return "hidden members, which are not read"
    return None if member.isfile() else "links and devices, which are not read"


def _split(name: str) -> tuple[str, str]:
    """`a/b.seg.png` -> `a/b`, `seg.png`: the stem ends at the first dot of the last part, as in webdataset."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, suffix.lower()

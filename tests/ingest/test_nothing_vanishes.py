"""Whatever a source lists is in the index, or skipped with a reason, or told."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm.files import name_path
from vlm.index.base import Vectors
from vlm.index.flat import FlatIndex
from vlm.ingest.embedding import embed_collection
from vlm.ingest.job import Job, Model
from vlm.ingest.plan import prepare
from vlm.ingest.sources import open_source
from vlm.ingest.sync import Synced, sync
from vlm.media.open import Media


def picture(colour: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 6), (colour, 90, 200 - colour)).save(stream, "PNG")
    return stream.getvalue()


LATIN = os.fsdecode(b"caf\xe9.png")
FILES = {
    "a.png": picture(1), "b.png": picture(2), "no suffix": picture(3), LATIN: picture(4), "#1.png": picture(5),
    "~me.png": picture(6), "u\u2028v.png": picture(7), " spaces .png": picture(8), "caf\\xe9.png": picture(9),
    "line\\back.png": picture(10), "say.mp3": b"ID3" + bytes(40), "broken.png": picture(1)[:40], "empty.jpg": b"",
    "x.jxl": b"\xff\x0a" + bytes(40), "raw.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "notes.txt": b"words",
    "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
    "un\U0001f600.png": picture(11),
    "y.heic": b"\0\0\0\x18ftypheic", "clip.vob": b"\0\0\1\xba" + bytes(60),
}  # fmt: skip
ABSENT = ("missing.png", "w" * 300 + ".png", "C:\\photos\\cat.jpg", "~nobody/x.png")
NAMES = [*FILES, *ABSENT]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=8)


def mean_colours(media: Sequence[Media]) -> Vectors:
    means = np.array([np.asarray(item.frames[0], np.float32).mean((0, 1)) + 1 for item in media])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def told(done: Synced) -> int:
    """Records that are no entries of their own and are said to be none."""
    words = ("again", "without a picture", "no pictures or clips", "hidden", "comments")
    return sum(note["count"] for note in done.notes.as_json() if any(word in note["note"] for word in words))


def a_list(home: Path, names: Sequence[str]) -> tuple[Path, int]:
    (home / "s.txt").write_bytes(b"\n".join(map(os.fsencode, names)))
    return home / "s.txt", sum(bool(name.strip()) for name in names)


def a_table(home: Path, names: Sequence[str], delimiter: str = ",", suffix: str = "csv") -> tuple[Path, int]:
    path = home / f"s.{suffix}"
    with path.open("w", newline="", errors="surrogateescape") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(["image", "n"])
        rows.writerows([name, number] for number, name in enumerate(names))
        rows.writerow(["one cell"])
        rows.writerow(["", "an empty name"])
    return path, len(names) + 2


def a_tsv(home: Path, names: Sequence[str]) -> tuple[Path, int]:
    return a_table(home, names, "\t", "tsv")


def a_parquet(home: Path, names: Sequence[str]) -> tuple[Path, int]:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [None if name == LATIN else name for name in names]
    parquet.write_table(pyarrow.table({"image": pyarrow.array(texts, pyarrow.string())}), home / "s.parquet")
    return home / "s.parquet", len(names)


def json_lines(home: Path, names: Sequence[str]) -> tuple[Path, int]:
    lines = [json.dumps({"image": name, "n": number}) for number, name in enumerate(names)]
    (home / "s.jsonl").write_text("\n".join([*lines, "{broken", json.dumps({"image": None})]))
    return home / "s.jsonl", len(names) + 2


def coco(home: Path, names: Sequence[str]) -> tuple[Path, int]:
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    notes = [{"image_id": number, "caption": f"of {number}"} for number in range(len(names))]
    (home / "s.json").write_text(json.dumps({"images": [*images, {"id": 99}, "no object"], "annotations": notes}))
    return home / "s.json", len(names) + 2


def llava(home: Path, names: Sequence[str]) -> tuple[Path, int]:
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    rows = [{"id": str(number % 2), "image": name, "conversations": said} for number, name in enumerate(names)]
    (home / "s.json").write_text(json.dumps([*rows, {"id": "t", "conversations": said}]))
    return home / "s.json", len(names) + 1


def a_tar(home: Path, names: Sequence[str]) -> tuple[Path, int]:
    """A sample a name, with a caption in Latin-1; those of no file have the caption alone."""
    with tarfile.open(home / "s.tar", "w") as archive:
        for number, name in enumerate(names):
            stem = f"{number}.{os.path.splitext(name)[0]}"[:60] + os.path.splitext(name)[1]
            members = [(f"{number}.txt", "caf\xe9".encode("latin-1")), ("._x", b"hidden")]
            members += [(stem.replace("\\", ""), FILES[name])] if name in FILES else []
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return home / "s.tar", 2 * len(names)  # a sample, and what macOS puts beside it


SOURCES = [a_list, a_table, a_tsv, a_parquet, json_lines, coco, llava, a_tar]


@pytest.mark.parametrize("write", SOURCES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=PATHS)
def test_what_a_source_lists(
    home: Path, tmp_path: Path, write: Callable[[Path, Sequence[str]], tuple[Path, int]], names: list[str]
) -> None:
    place, records = write(home, names)
    index = FlatIndex(tmp_path / "index", 3, "eye")
    done = sync(index, open_source(str(place)), mean_colours)
    assert records == done.indexed + len(done.skipped) + told(done), (done, done.notes.lines())
    assert len(index) == done.indexed
    for skip in done.skipped:
        assert "\n" not in skip.reason
        assert skip.reason.encode()  # a text, whatever the name's bytes
    if write is not a_tar:
        good = {name for name in names if name in FILES and FILES[name][:4] == b"\x89PNG" and name != "broken.png"}
        good -= {LATIN} if write is a_parquet else set()
        assert {Path(name_path(id)).name for id in index} == good


def test_what_a_folder_holds(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / ".hidden.png").write_bytes(picture(20))
    for name, content in FILES.items():
        (folder / "inner" / name).write_bytes(content)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.png").write_bytes(picture(30))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.png").symlink_to(tmp_path / "nothing")
    done = sync(FlatIndex(tmp_path / "index", 3, "eye"), open_source(str(folder)), mean_colours)
    assert done.indexed + len(done.skipped) + told(done) == len(FILES) + 3
    assert done.indexed == 12
    lines = "\n".join(done.notes.lines())
    assert "loop: a link to a folder that is read under another name, left out" in lines
    assert "files of .mp3" in lines
    reasons = "\n".join(skip.reason for skip in done.skipped)
    for words in ("JPEG XL, which is not read", "Canon raw (CR2), which is not read", "a git-lfs pointer"):
        assert words in reasons


@pytest.mark.parametrize("write", [a_list, a_table, json_lines, coco, a_tar])
def test_a_folder_of_vectors_tells_as_much(
    home: Path, tmp_path: Path, write: Callable[[Path, Sequence[str]], tuple[Path, int]]
) -> None:
    place, _ = write(home, [*NAMES, "a.png"])
    plain = sync(FlatIndex(tmp_path / "index", 3, "eye"), open_source(str(place)), mean_colours)
    source = open_source(str(place), in_place=True)
    prepare(tmp_path / "v", source, "eye", 3, {}, 5)
    done = embed_collection(Job(tmp_path / "v", lambda: Model(mean_colours)))
    assert done.embedded == plain.indexed
    assert sorted(skip.input for skip in done.skipped) == sorted(skip.input for skip in plain.skipped)
    assert sorted(skip.reason for skip in done.skipped) == sorted(skip.reason for skip in plain.skipped)
    assert source.notes.as_json() == plain.notes.as_json()

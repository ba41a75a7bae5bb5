"""An index follows its source: by content, once, whatever is unreadable, and after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm.errors import BadInput
from vlm.index.base import Vectors
from vlm.index.flat import FlatIndex
from vlm.ingest.sources import open_source
from vlm.ingest.sync import Synced, sync
from vlm.media.open import Media

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}


class Eye:
    """Mean colours as vectors, and what it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, media: Sequence[Media]) -> Vectors:
        self.shown += [Path(item.source).stem for item in media]
        means = np.array([np.asarray(item.frames[0], np.float32).mean((0, 1)) + 1 for item in media])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (9, 9), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> FlatIndex:
    return FlatIndex.create(tmp_path / "index", 3, "eye")


def run(index: FlatIndex, place: Path, eye: Eye | None = None, **options: Any) -> Synced:
    return sync(index, open_source(str(place)), eye or Eye(), **options)


def names(index: FlatIndex) -> list[str]:
    return sorted(Path(id).stem for id in index)


def test_only_what_changed_is_embedded(index: FlatIndex, photos: Path) -> None:
    assert run(index, photos).embedded == 3
    eye = Eye()
    assert run(index, photos, eye) == Synced(unchanged=3)
    (photos / "red.png").rename(photos / "moved.png")
    Image.new("RGB", (9, 9), "white").save(photos / "blue.png")
    (photos / "lime.png").touch()
    done = run(index, photos, eye)
    assert (done.embedded, done.moved, done.unchanged, done.vanished) == (1, 2, 0, 1)
    assert eye.shown == ["blue"]
    assert names(index) == ["blue", "lime", "moved", "red"]
    assert run(index, photos, prune=True).removed == 1
    assert names(index) == ["blue", "lime", "moved"]
    np.testing.assert_allclose(index.vector(str(photos / "blue.png")), np.full(3, 3**-0.5), rtol=1e-6)
    assert names(FlatIndex.open(index.folder)) == names(index)


def test_content_that_two_files_exchange_is_not_mistaken(index: FlatIndex, photos: Path) -> None:
    run(index, photos)
    before = {name: index.vector(str(photos / f"{name}.png")) for name in COLOURS}
    red, blue = (photos / "red.png"), (photos / "blue.png")
    contents = red.read_bytes(), blue.read_bytes()
    blue.write_bytes(contents[0])
    red.write_bytes(contents[1])
    run(index, photos)
    np.testing.assert_array_equal(index.vector(str(red)), before["blue"])
    np.testing.assert_array_equal(index.vector(str(blue)), before["red"])
    np.testing.assert_array_equal(index.vector(str(photos / "lime.png")), before["lime"])


def test_other_entries_stay(index: FlatIndex, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos-2").mkdir()
    Image.new("RGB", (9, 9), "black").save(tmp_path / "photos-2" / "black.png")
    run(index, photos)
    assert run(index, tmp_path / "photos-2", prune=True).removed == 0
    assert len(index) == 4


def test_duplicates_are_left_out_where_asked(index: FlatIndex, photos: Path) -> None:
    (photos / "twin.png").write_bytes((photos / "red.png").read_bytes())
    Image.new("RGB", (9, 9), (250, 3, 3)).save(photos / "tone.png")
    eye = Eye()
    kept = run(index, photos, eye)
    assert (kept.embedded, kept.moved, kept.duplicates) == (4, 1, [])
    assert sorted(eye.shown) == ["blue", "lime", "red", "tone"]
    exact = FlatIndex.create(photos.parent / "exact", 3, "eye")
    done = run(exact, photos, duplicates="exact")
    assert [(Path(a).stem, Path(b).stem) for a, b in done.duplicates] == [("twin", "red")]
    near = FlatIndex.create(photos.parent / "near", 3, "eye")
    done = run(near, photos, duplicates="near", threshold=0.99)
    assert [(Path(a).stem, Path(b).stem) for a, b in done.duplicates] == [("tone", "red"), ("twin", "red")]
    assert names(near) == ["blue", "lime", "red"]


def test_the_unreadable_is_skipped_and_stays_until_pruned(index: FlatIndex, photos: Path) -> None:
    run(index, photos)
    (photos / "red.png").write_bytes(b"broken")
    (photos / "empty.png").touch()
    done = run(index, photos)
    assert sorted(Path(skip.input).stem for skip in done.skipped) == ["empty", "red"]
    assert all(skip.input in skip.reason and "\n" not in skip.reason for skip in done.skipped)
    assert (names(index), done.vanished) == (["blue", "lime", "red"], 0)
    run(index, photos, prune=True)
    assert names(index) == ["blue", "lime"]


def test_a_source_that_breaks_off_keeps_what_was_done(index: FlatIndex, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('path,colour\nphotos/red.png,red\nphotos/lime.png,green\nphotos/blue.png,"bl')
    with pytest.raises(BadInput, match="not a table in UTF-8: unexpected end of data"):
        run(index, table, prune=True)
    assert names(FlatIndex.open(index.folder)) == ["lime", "red"]
    table.write_text("path,colour\nphotos/red.png,scarlet\nphotos/lime.png,green\nphotos/blue.png,blue\n")
    done = run(index, table)
    assert (done.embedded, done.moved, done.unchanged) == (1, 1, 1)
    assert index.metadata(str(photos / "red.png"))["colour"] == "scarlet"


def test_a_bad_row_is_that_rows_own(index: FlatIndex, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("path,colour\nphotos/red.png,red\nphotos/lime.png,green\nphotos/blue.png,blue\n")
    run(index, table)
    table.write_text("path,colour\nphotos/red.png,red\nphotos/lime.png\nphotos/blue.png,navy\n")
    done = run(index, table, prune=True)
    assert (done.unchanged, done.moved, done.removed) == (1, 1, 0)
    (skipped,) = done.skipped
    assert skipped.reason.endswith("record 2: 1 values; expected 2 (path, colour)")
    assert names(index) == ["blue", "lime", "red"]  # the bad row may have named it
    assert any("nothing is removed" in line for line in done.notes.lines())


WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import vlm.ingest.sync as ingest
from test_sync import Eye
from vlm.index.flat import FlatIndex
from vlm.ingest.sources import open_source
ingest.BATCH, ingest.COMMIT_SECONDS = 2, 0.0
class Slow(Eye):
    def __call__(self, media):
        print("batch", flush=True)
        time.sleep(0.05)
        return super().__call__(media)
folder = Path(sys.argv[2])
index = FlatIndex.open(folder) if (folder / "manifest.json").exists() else FlatIndex.create(folder, 3, "eye")
ingest.sync(index, open_source(sys.argv[1]), Slow())
"""


@pytest.mark.process
def test_killed_runs_lose_and_double_nothing(photos: Path, tmp_path: Path) -> None:
    for number in range(12):
        Image.new("RGB", (9, 9), (number * 20, 30, 60)).save(photos / f"{number:02d}.png")
    folder = tmp_path / "index"
    arguments = [sys.executable, "-c", WORKER, str(photos), str(folder), str(Path(__file__).parent)]
    counts = []
    for kill_at in (3, 2, 1):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(kill_at):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        counts.append(len(FlatIndex.open(folder)) if (folder / "manifest.json").exists() else 0)
    assert counts == sorted(counts)
    assert counts[0] >= 2
    eye = Eye()
    index = FlatIndex.open(folder)
    done = run(index, photos, eye)
    assert done.unchanged == counts[-1]
    assert len(eye.shown) == 15 - counts[-1]
    assert len(index) == 15
    for id in index:
        np.testing.assert_allclose(index.vector(id), Eye()([_media(id)])[0], rtol=1e-6)


def _media(path: str) -> Media:
    return Media((Image.open(path).convert("RGB"),), source=path)

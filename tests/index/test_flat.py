"""The flat index: exact search, and files that are whole whatever happens."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vlm.errors import BadInput
from vlm.index.flat import MANIFEST, FlatIndex


def unit(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def saved(folder: Path, count: int = 5) -> FlatIndex:
    index = FlatIndex.create(folder, 8, "m")
    index.upsert([f"id{i}" for i in range(count)], unit(count), [{"n": i} for i in range(count)])
    index.commit()
    return index


def test_search_is_the_exact_order_of_inner_products(tmp_path: Path) -> None:
    vectors, queries = unit(200), unit(7, seed=1)
    index = FlatIndex.create(tmp_path / "i", 8, "m")
    index.upsert([str(i) for i in range(200)], vectors)
    for query, hits in zip(queries, index.search(queries, 10), strict=True):
        expected = np.argsort(-(vectors @ query), kind="stable")[:10]
        assert [hit.id for hit in hits] == [str(i) for i in expected]
        np.testing.assert_allclose([hit.score for hit in hits], (vectors @ query)[expected], atol=1e-6)
        assert index.search(query[None], 10) == [hits]


def test_ties_keep_the_order_of_insertion_and_top_may_exceed_the_size(tmp_path: Path) -> None:
    index = FlatIndex.create(tmp_path / "i", 8, "m")
    index.upsert(["c", "a", "b"], np.repeat(unit(1), 3, axis=0))
    assert [hit.id for hit in index.search(unit(1), 2)[0]] == ["c", "a"]
    assert len(index.search(unit(1), 50)[0]) == 3


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = FlatIndex.create(tmp_path / "i", 8, "m")
    index.commit()
    assert FlatIndex.open(tmp_path / "i").search(unit(2), 5) == [[], []]


def test_what_is_saved_is_what_is_opened(tmp_path: Path) -> None:
    before = saved(tmp_path / "i")
    after = FlatIndex.open(tmp_path / "i", model="m", width=8)
    assert list(after) == list(before)
    assert after.metadata("id3") == {"n": 3}
    assert after.search(unit(1, seed=2), 5) == before.search(unit(1, seed=2), 5)


def test_upsert_replaces_and_delete_removes(tmp_path: Path) -> None:
    index = saved(tmp_path / "i")
    index.upsert(["id1", "new"], unit(2, seed=3), [{"n": 11}, {"n": 12}])
    assert (len(index), index.metadata("id1")) == (6, {"n": 11})
    np.testing.assert_array_equal(index.vector("id1"), unit(2, seed=3)[0])
    assert index.delete(["id0", "id4", "nobody"]) == 2
    assert list(index) == ["id1", "id2", "id3", "new"]
    index.upsert(["last"], unit(1, seed=4))
    assert index.search(unit(1, seed=4), 1)[0][0].id == "last"
    assert "id0" not in index


def test_many_small_upserts(tmp_path: Path) -> None:
    index, vectors = FlatIndex.create(tmp_path / "i", 8, "m"), unit(300)
    for i in range(300):
        index.upsert([str(i)], vectors[i : i + 1])
    assert all(np.array_equal(index.vector(str(i)), vectors[i]) for i in range(300))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (unit(2, 7), "expected 2 vectors of width 8"),
        (unit(3), "expected 2 vectors of width 8"),
        (unit(2) * 2, "length 1, got 2 for 'a'"),
        (np.full((2, 8), np.nan), "length 1, got nan"),
    ],
)
def test_bad_vectors_are_refused_and_change_nothing(tmp_path: Path, vectors: np.ndarray, message: str) -> None:
    index = saved(tmp_path / "i")
    with pytest.raises(BadInput, match=message):
        index.upsert(["a", "b"], vectors)
    assert len(index) == 5


def test_bad_queries_are_refused(tmp_path: Path) -> None:
    index = saved(tmp_path / "i")
    with pytest.raises(BadInput, match=r"queries \[Q, 8\], got \[1, 7\]"):
        index.search(unit(1, 7), 5)
    with pytest.raises(BadInput, match="at least 1"):
        index.search(unit(1), 0)


def test_open_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    saved(tmp_path / "i")
    for folder, message, options in [
        ("none", "no such folder", {}),
        ("file", "got a file", {}),
        ("empty", "without manifest.json", {}),
        ("i", "expected an index of model other, got one of m", {"model": "other"}),
        ("i", "expected vectors of width 9, got 8", {"width": 9}),
    ]:
        with pytest.raises(BadInput, match=message) as error:
            FlatIndex.open(tmp_path / folder, **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", ["vectors-*", "entries-*", MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_damage_is_found(tmp_path: Path, pattern: str, damage: str) -> None:
    saved(tmp_path)
    (path,) = tmp_path.glob(pattern)
    content = path.read_bytes()
    path.unlink() if damage == "removed" else path.write_bytes(
        content[:-9] if damage == "cut" else content[:40] + b"\xff" + content[41:]
    )
    with pytest.raises(BadInput, match=r"damaged index|without manifest"):
        FlatIndex.open(tmp_path)


def test_another_format_or_version_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"version": 2}))
    with pytest.raises(BadInput, match="version 1"):
        FlatIndex.open(tmp_path)


def test_create_never_takes_a_folder_that_holds_something(tmp_path: Path) -> None:
    saved(tmp_path / "i")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    with pytest.raises(BadInput, match="with an index"):
        FlatIndex.create(tmp_path / "i", 8, "m")
    with pytest.raises(BadInput, match="with other files"):
        FlatIndex.create(tmp_path / "photos", 8, "m")
    with pytest.raises(BadInput, match="got a file"):
        FlatIndex.create(tmp_path / "photos" / "a.jpg", 8, "m")


def test_a_commit_that_fails_before_its_manifest_leaves_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = saved(tmp_path)
    index.delete(["id0"])
    import vlm.index.flat as flat

    write = flat.atomic_write

    def failing(path: Path, content: bytes | str) -> None:
        if path.name == MANIFEST:
            raise OSError("disk full")
        write(path, content)

    monkeypatch.setattr(flat, "atomic_write", failing)
    with pytest.raises(OSError, match="disk full"):
        index.commit()
    assert len(FlatIndex.open(tmp_path)) == 5
    monkeypatch.undo()
    index.commit()
    assert len(FlatIndex.open(tmp_path)) == 4
    assert len(list(tmp_path.iterdir())) == 4


WRITER = """
import sys, numpy as np
from vlm.index.flat import FlatIndex
index = FlatIndex.open(sys.argv[1])
vectors = np.eye(8, dtype=np.float32)[np.arange(4000) % 8]
print("ready", flush=True)
turn = 0
while True:
    turn += 1
    index.upsert([str(i) for i in range(4000)], vectors, [{"turn": turn}] * 4000)
    index.commit()
"""


@pytest.mark.process
def test_kill_at_any_time_leaves_a_whole_index(tmp_path: Path) -> None:
    FlatIndex.create(tmp_path, 8, "m").commit()
    for pause in (0.0, 0.013, 0.04, 0.07):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        index = FlatIndex.open(tmp_path)
        assert len(index) in (0, 4000)
        assert len({index.metadata(id)["turn"] for id in index}) <= 1


def test_a_full_disk_is_emptied_by_deleting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of more than a manifest's size can be written, and a manifest only once the spare room is given up."""
    from vlm.index import flat

    index = FlatIndex.create(tmp_path / "i", 8, "m")
    index.upsert(list("abcd"), unit(4), [{"n": n} for n in range(4)])
    index.commit()
    write = flat.atomic_write
    free = False

    def full(path: Path, content: bytes | str) -> None:
        if not free and (path.name != flat.MANIFEST or (tmp_path / "i" / flat.SPARE).exists()):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(flat, "atomic_write", full)
    assert index.delete(["b", "d"]) == 2
    index.commit()
    assert index.delete(["a"]) == 1
    index.commit()
    again = FlatIndex.open(tmp_path / "i")
    assert list(again) == ["c"]
    np.testing.assert_array_equal(again.vector("c"), unit(4)[2])
    again.upsert(["e"], unit(1, seed=9))
    with pytest.raises(OSError, match="space"):
        again.commit()
    assert list(FlatIndex.open(tmp_path / "i")) == ["c"]
    free = True
    again.commit()
    assert list(FlatIndex.open(tmp_path / "i")) == ["c", "e"]
    assert (tmp_path / "i" / flat.SPARE).stat().st_size == flat.SPARE_BYTES
    assert "gone" not in (tmp_path / "i" / flat.MANIFEST).read_text()

"""A collection becomes the same folder of vectors whichever engine did it, whatever was unreadable, and after kills."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from folders_of_vectors import COUNT, embed, eye, plan, png, rows, run, state
from PIL import Image

from vlm.errors import BadInput, VlmError
from vlm.index.flat import FlatIndex
from vlm.ingest.embedding import check_engine, embed_collection
from vlm.ingest.job import Job, Model
from vlm.ingest.loading import load
from vlm.ingest.plan import items_of, open_plan, prepare
from vlm.ingest.sources import open_source
from vlm.ingest.sync import Synced, sync
from vlm.media.open import Media

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def test_a_folder_of_vectors_has_every_item_once(photos: Path, tmp_path: Path) -> None:
    told: list[int] = []
    done = run(tmp_path / "v", photos, advance=lambda items, text: told.append(items))
    assert (done.embedded, done.before, done.shards, told[-1]) == (COUNT, 0, 3, COUNT + 1)
    assert [Path(skip.input).name for skip in done.skipped] == ["05b.png"]
    found = rows(tmp_path / "v")
    assert len(found) == COUNT + 1
    bad = found[str(photos / "05b.png")]
    assert bad["vector"] is None
    assert str(photos / "05b.png") in bad["problem"]
    good = found[str(photos / "07.png")]
    np.testing.assert_allclose(good["vector"], embed([media(photos / "07.png")])[0], rtol=1e-6)
    assert set(json.loads(good["metadata"])["file"]) == {"sha256", "stamp", "from"}


def test_a_second_run_does_what_is_left(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "v", photos)
    whole = state(tmp_path / "v")
    (tmp_path / "v" / "00001.parquet").write_bytes(whole["00001.parquet"][:-10])
    (tmp_path / "v" / "00002.parquet").unlink()
    (tmp_path / "v" / ".00002.parquet.abc.parquet").touch()
    done = run(tmp_path / "v", photos)
    assert (done.embedded, done.before) == (6, 5)
    assert [Path(skip.input).name for skip in done.skipped] == ["05b.png"]
    assert state(tmp_path / "v") == whole
    assert not list((tmp_path / "v").glob(".0*"))


def test_nothing_is_loaded_where_nothing_is_left(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "v", photos)

    def never() -> Model:
        raise AssertionError

    assert embed_collection(Job(tmp_path / "v", never)).embedded == 0


def test_another_model_list_or_setting_is_refused(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "v"
    first = plan(folder, photos)
    assert plan(folder, photos) == first == open_plan(folder)
    with pytest.raises(BadInput, match="begun with model eye, expected the same, got ear"):
        plan(folder, photos, "ear")
    with pytest.raises(BadInput, match="begun with settings"):
        plan(folder, photos, settings={"frames": 8})
    (photos / "new.png").write_bytes(png(1))
    with pytest.raises(BadInput, match="begun with 12 items, expected the same list, got another of 13"):
        plan(folder, photos)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(BadInput, match="expected a new or empty folder"):
        plan(photos, photos)
    with pytest.raises(BadInput, match="expected pictures or clips"):
        plan(tmp_path / "w", tmp_path / "empty.txt")
    assert not (tmp_path / "w" / "_plan").exists()


def test_a_shard_of_another_plan_is_not_taken(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "v", photos)
    prepare(tmp_path / "w", open_source(str(photos)), "ear", 3, {}, 5)
    (tmp_path / "w" / "00000.parquet").write_bytes((tmp_path / "v" / "00000.parquet").read_bytes())
    assert embed_collection(Job(tmp_path / "w", eye)).embedded == COUNT


def test_an_engine_that_is_not_there_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="unknown engine 'spark'"):
        check_engine("spark")
    monkeypatch.setattr("vlm.ingest.embedding.find_spec", lambda name: None if name == "ray" else object())
    check_engine("local")
    with pytest.raises(BadInput, match=r"ray, which is not installed: pip install 'vlm\[ray\]'"):
        check_engine("ray")


def test_pictures_inside_archives_and_tables_are_read_where_they_lie(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with tarfile.open(tmp_path / "s-0.tar", "w") as archive:
        for number in range(7):
            add(archive, f"{number}.png", png(number))
            add(archive, f"{number}.txt", f"number {number}".encode())
    with tarfile.open(tmp_path / "s-1.tar", "w") as archive:
        add(archive, "x.png", b"broken")
    table = {"image": [{"bytes": png(n), "path": None} for n in range(6)] + [None], "n": list(range(7))}
    parquet.write_table(pa.table(table), tmp_path / "t.parquet", row_group_size=3)
    parquet.write_table(pa.table({"image": table["image"][:6]}), tmp_path / "u.parquet")
    for name, good, bad, said in (
        ("s-*.tar", 7, 1, {"text": "number 3"}),
        ("t.parquet", 6, 1, {"n": 3}),
        ("u.parquet", 6, 0, {}),
    ):
        folder = tmp_path / f"v-{name}"
        done = run(folder, tmp_path / name)
        assert (done.embedded, len(done.skipped)) == (good, bad)
        assert not any(isinstance(item.place, bytes) for item in items_of(folder, 0))
        row = list(rows(folder).values())[3]
        np.testing.assert_allclose(row["vector"], np.float32(unit([61, 31, 61])), rtol=1e-6)
        assert {key: v for key, v in json.loads(row["metadata"]).items() if key != "file"} == said
        index = FlatIndex.create(tmp_path / f"i-{name}", 3, "eye")
        load(index, folder)
        if name != "t.parquet":  # there a null ends a sync
            assert sync(index, open_source(str(tmp_path / name)), embed).unchanged == good


def test_a_packed_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as archive:
        add(archive, "1.png", png(1))
    with pytest.raises(BadInput, match="not compressed"):
        open_source(str(tmp_path / "s.tar.gz"), in_place=True)


def test_an_index_filled_from_vectors_is_up_to_date(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "v", photos)
    index = FlatIndex.create(tmp_path / "index", 3, "eye")
    assert load(index, tmp_path / "v").moved == COUNT
    assert load(index, tmp_path / "v").unchanged == COUNT
    direct = FlatIndex.create(tmp_path / "direct", 3, "eye")
    sync(direct, open_source(str(photos)), embed)
    assert sorted(index) == sorted(direct)
    for id in direct:
        np.testing.assert_array_equal(index.vector(id), direct.vector(id))
        assert index.metadata(id) == direct.metadata(id)
    (photos / "03.png").write_bytes(png(9))
    done = sync(index, open_source(str(photos)), embed)
    assert (done.unchanged, done.moved, done.embedded) == (COUNT - 1, 1, 0)
    short = FlatIndex.create(tmp_path / "short", 2, "eye")
    load(short, tmp_path / "v")
    np.testing.assert_allclose(np.linalg.norm(short.vector(str(photos / "00.png"))), 1, rtol=1e-6)
    assert isinstance(done, Synced)


def test_missing_and_damaged_shards_are_not_loaded(photos: Path, tmp_path: Path) -> None:
    run(tmp_path / "v", photos)
    index = FlatIndex.create(tmp_path / "index", 3, "eye")
    file = tmp_path / "v" / "00001.parquet"
    whole = file.read_bytes()
    at = whole.index(b"\x28\xb5\x2f\xfd") + 8  # within the first page
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(BadInput, match="expected a shard of vectors"):
        load(index, tmp_path / "v")
    file.unlink()
    with pytest.raises(BadInput, match="1 of 3 are not there yet"):
        load(index, tmp_path / "v")


def test_two_runs_do_not_meet(photos: Path, tmp_path: Path) -> None:
    plan(tmp_path / "v", photos)

    def meet(job: Job) -> Model:
        with pytest.raises(VlmError, match="another run is embedding into it"):
            embed_collection(job)
        return eye()

    job = Job(tmp_path / "v", eye)
    assert embed_collection(Job(tmp_path / "v", lambda: meet(job))).embedded == COUNT


def media(path: Path) -> Media:
    return Media((Image.open(path).convert("RGB"),))


def unit(row: Sequence[float]) -> np.ndarray:
    return np.asarray(row) / np.linalg.norm(row)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))

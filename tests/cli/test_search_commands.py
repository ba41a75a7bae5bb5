"""`vlm index` and `vlm search`: found, kept up to date, refused in one line."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stand_in import FakeModel, bad_files

from vlm.index.flat import FlatIndex

NOTHING = {"indexed": 0, "embedded": 0, "removed": 0, "vanished": 0, "duplicates": [], "skipped": []}


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def index(vlm_command: Any, model: FakeModel, photos: Path, tmp_path: Path) -> Path:
    done = vlm_command("index", photos, "--to", tmp_path / "idx", "--json")
    assert (done.code, done.json) == (0, NOTHING | {"indexed": 3, "embedded": 3})
    model.embedded.clear()
    return tmp_path / "idx"


def found(vlm_command: Any, index: Path, *query: str | Path) -> list[str]:
    return [Path(row["path"]).name for row in vlm_command("search", index, *query, "--json").json["results"]]


def test_search_by_words_and_by_a_picture(vlm_command: Any, index: Path, photos: Path) -> None:
    done = vlm_command("search", index, "red", "--top", "2", "--json")
    first, second = done.json["results"]
    assert first["path"] == str(photos / "red.png")
    assert 1 >= first["score"] > second["score"]
    assert set(first) == {"path", "score"}
    assert found(vlm_command, index, photos / "blue.png", "--top", "1") == ["blue.png"]
    assert "red.png" in vlm_command("search", index, "red").out


def test_a_filter_and_a_least_score(vlm_command: Any, index: Path) -> None:
    assert len(found(vlm_command, index, "red")) == 3
    assert found(vlm_command, index, "red", "--min-score", "0.99") == ["red.png"]
    sha256 = {id: metadata["file"]["sha256"] for id, metadata in FlatIndex.open(index).items()}
    blue = next(name for name in sha256 if name.endswith("blue.png"))
    where = json.dumps({"file.sha256": sha256[blue]})
    assert found(vlm_command, index, "red", "--filter", where) == ["blue.png"]
    for bad in ("{", "[]", '{"a": {"like": 1}}'):
        done = vlm_command("search", index, "red", "--filter", bad)
        assert (done.code, done.err.count("\n")) == (2, 1)


def test_an_index_on_a_server(vlm_command: Any, model: FakeModel, photos: Path, monkeypatch: Any) -> None:
    qdrant_client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    client = qdrant_client.QdrantClient(":memory:")
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda **how: client)
    place = "http://127.0.0.1:6333/photos"
    assert vlm_command("index", photos, "--to", place, "--json").json["embedded"] == 3
    assert vlm_command("index", photos, "--to", place, "--json").json["embedded"] == 0
    assert found(vlm_command, place, "red", "--top", "1") == ["red.png"]
    done = vlm_command("search", "http://127.0.0.1:6333/none", "red")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_an_index_of_lancedb_is_found_and_kept_up_to_date(
    vlm_command: Any, model: FakeModel, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    to = tmp_path / "lance"
    assert vlm_command("index", photos, "--to", to, "--engine", "lance", "--json").json["embedded"] == 3
    assert found(vlm_command, to, "red", "--top", "1") == ["red.png"]
    (photos / "lime.png").unlink()
    gc.disable()  # a command lets go of the index by itself
    try:
        for removed in (1, 0):
            again = vlm_command("index", photos, "--to", to, "--prune", "--json").json
            assert (again["embedded"], again["removed"]) == (0, removed)
    finally:
        gc.enable()
    assert found(vlm_command, to, "red") == ["red.png", "blue.png"]


def test_only_what_changed_is_embedded(vlm_command: Any, index: Path, photos: Path, model: FakeModel) -> None:
    before = state(index)
    assert vlm_command("index", photos, "--to", index, "--json").json == NOTHING | {"indexed": 3}
    assert (model.embedded, state(index)) == ([], before)
    (photos / "sub").mkdir()
    (photos / "red.png").rename(photos / "sub" / "moved.png")
    (photos / "lime.png").unlink()
    Image.new("RGB", (9, 9), "white").save(photos / "blue.png")
    done = vlm_command("index", photos, "--to", index, "--prune", "--json")
    assert done.json == NOTHING | {"indexed": 2, "embedded": 1, "removed": 2}
    assert model.embedded == [str(photos / "blue.png")]
    assert sorted(Path(id).name for id in FlatIndex.open(index)) == ["blue.png", "moved.png"]
    assert found(vlm_command, index, "red", "--top", "1") == ["moved.png"]


def test_another_folder_goes_into_the_same_index(vlm_command: Any, index: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    Image.new("RGB", (9, 9), "black").save(tmp_path / "more" / "black.png")
    vlm_command("index", tmp_path / "more", "--to", index)
    assert len(FlatIndex.open(index)) == 4


def test_bad_files_are_skipped_and_named(vlm_command: Any, photos: Path, model: FakeModel, tmp_path: Path) -> None:
    bad = bad_files(photos / "bad")
    done = vlm_command("index", photos, "--to", tmp_path / "idx", "--json")
    assert (done.code, done.json["indexed"]) == (2, 3)
    assert [Path(row["path"]).name for row in done.json["skipped"]] == list(bad)
    assert all(row["path"] in row["reason"] for row in done.json["skipped"])


def test_a_file_that_breaks_leaves_the_index_when_pruned(vlm_command: Any, index: Path, photos: Path) -> None:
    (photos / "red.png").write_bytes(b"broken")
    assert vlm_command("index", photos, "--to", index, "--json").json["indexed"] == 2
    assert str(photos / "red.png") in FlatIndex.open(index)
    assert vlm_command("index", photos, "--to", index, "--prune", "--json").json["removed"] == 1
    assert str(photos / "red.png") not in FlatIndex.open(index)


def test_a_tables_duplicates_are_named(vlm_command: Any, photos: Path, model: FakeModel, tmp_path: Path) -> None:
    (photos / "twin.png").write_bytes((photos / "red.png").read_bytes())
    table = tmp_path / "table.csv"
    table.write_text("what,where\nfirst,red.png\nsecond,twin.png\n")
    options = ["--column", "where", "--below", photos, "--duplicates", "exact", "--json"]
    done = vlm_command("index", table, "--to", tmp_path / "idx", *options)
    assert done.json["duplicates"] == [{"path": str(photos / "twin.png"), "same_as": str(photos / "red.png")}]
    assert FlatIndex.open(tmp_path / "idx").metadata(str(photos / "red.png"))["what"] == "first"


def test_nothing_is_written_where_nothing_can_be_indexed(vlm_command: Any, model: FakeModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bad_files(tmp_path / "bad")
    for folder in ("empty", "none", "bad"):
        done = vlm_command("index", tmp_path / folder, "--to", tmp_path / "idx")
        assert done.code == 2
        assert not (tmp_path / "idx").exists()
    assert len(vlm_command("index", tmp_path / "empty", "--to", tmp_path / "idx").complaints) == 1


def test_a_kill_while_embedding_leaves_the_old_index(
    vlm_command: Any, index: Path, photos: Path, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(index)
    Image.new("RGB", (9, 9), "white").save(photos / "white.png")

    def killed(media: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "embed_images", killed)
    assert vlm_command("index", photos, "--to", index).code == 130
    assert state(index) == before


def test_an_index_is_never_made_among_pictures(vlm_command: Any, photos: Path, model: FakeModel) -> None:
    done = vlm_command("index", photos, "--to", photos)
    assert (done.code, len(done.complaints)) == (2, 1)
    assert len(list(photos.iterdir())) == 3


def test_search_says_what_is_wrong(
    vlm_command: Any, index: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, message in [
        ((tmp_path / "none", "red"), "no such folder"),
        ((photos, "red"), "without manifest.json"),
        ((index, " "), "the query is empty"),
        ((index, tmp_path / "none.jpg"), "no such file"),
    ]:
        done = vlm_command("search", *arguments, "--json")
        assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
        assert message in done.err
    monkeypatch.setattr("vlm.cli.retrieval.space_of", lambda name: ("nano-2", 8))
    assert "expected an index of model nano-2, got one of nano-1" in vlm_command("search", index, "red").err

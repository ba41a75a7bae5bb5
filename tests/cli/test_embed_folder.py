"""`vlm embed --to FOLDER.parquet`, and `vlm index` of such a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stand_in import FakeModel, bad_files

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "photos.parquet"


def test_a_folder_is_embedded_once_and_indexed_without_a_model(
    vlm_command: Any, model: FakeModel, photos: Path, to: Path, tmp_path: Path
) -> None:
    done = vlm_command("embed", photos, "--to", to, "--shard", "2", "--json")
    assert (done.code, done.json) == (0, {"written": str(to), "count": 3, "embedded": 3, "shards": 2})
    again = vlm_command("embed", photos, "--to", to, "--shard", "2", "--engine", "local")
    assert again.out == f"{to}: 3 vectors in 2 shards\n"
    assert len(model.embedded) == 3
    index = vlm_command("index", to, "--to", tmp_path / "idx", "--json")
    assert index.json == {"indexed": 3, "stored": 3, "skipped": []}
    assert len(model.embedded) == 3
    hits = vlm_command("search", tmp_path / "idx", "red", "--top", "1", "--json").json["results"]
    assert hits[0]["path"] == str(photos / "red.png")
    assert vlm_command("index", photos, "--to", tmp_path / "idx", "--json").json["embedded"] == 0
    short = vlm_command("index", to, "--to", tmp_path / "short", "--width", "4", "--json")
    assert short.json["stored"] == 3


def test_what_cannot_be_read_is_named(vlm_command: Any, model: FakeModel, photos: Path, to: Path) -> None:
    bad = bad_files(photos / "bad")
    done = vlm_command("embed", photos, "--to", to, "--json")
    assert (done.code, done.json["count"], done.json["embedded"]) == (2, 3, 3)
    assert [Path(row["input"]).name for row in done.json["skipped"]] == list(bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text", "a cat"), "expected one SOURCE, --to FOLDER and no --text"),
        (("--engine", "spark"), "unknown engine 'spark'"),
        (("--workers", "2"), "expected --engine ray"),
        (("--width", "99"), "expected at most 8"),
    ],
)
def test_what_does_not_fit_is_a_line(
    vlm_command: Any, model: FakeModel, photos: Path, to: Path, options: tuple[str, ...], message: str
) -> None:
    done = vlm_command("embed", photos, "--to", to, *options)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert message in done.err
    assert not to.exists()


def test_vectors_are_indexed_as_they_are(
    vlm_command: Any, model: FakeModel, photos: Path, to: Path, tmp_path: Path
) -> None:
    vlm_command("embed", photos, "--to", to)
    for options, message in [
        (("--prune",), "expected no --prune"),
        (("--duplicates", "near"), "no --duplicates"),
        (("--width", "9"), "at most 8"),
    ]:
        done = vlm_command("index", to, "--to", tmp_path / "idx", *options)
        assert (done.code, len(done.complaints)) == (2, 1)
        assert message in done.err
    assert not (tmp_path / "idx").exists()

"""Beyond plain search: composed queries, shorter vectors, a second look, moments, duplicates, classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stand_in import WIDTH, FakeModel

from vlm.index.flat import FlatIndex


@pytest.fixture
def index(vlm_command: Any, model: FakeModel, photos: Path, tmp_path: Path) -> Path:
    Image.new("RGB", (40, 40), (255, 3, 0)).save(photos / "ruby.png")
    assert vlm_command("index", photos, "--to", tmp_path / "idx").code == 0
    return tmp_path / "idx"


def names(done: Any) -> list[str]:
    assert done.code == 0, done.err
    return [Path(row["path"]).name for row in done.json["results"]]


def test_words_beside_a_picture_move_the_query(vlm_command: Any, index: Path, photos: Path) -> None:
    query = ["search", index, photos / "red.png", "--json", "--top", "4"]
    plain = names(vlm_command(*query))
    assert set(plain[:2]) == {"red.png", "ruby.png"}
    both = names(vlm_command(*query, "--with", "blue"))
    assert both.index("blue.png") < both.index("lime.png")
    assert names(vlm_command(*query, "--with", "blue", "--weight", "1"))[0] == "blue.png"
    assert names(vlm_command(*query, "--with", "blue", "--weight", "0")) == plain


def test_words_are_searched_in_captions_too(vlm_command: Any, model: FakeModel, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    table = photos / "captions.csv"
    table.write_text("image,text\nred.png,a brick wall\nlime.png,a red frog\nblue.png,the sea\n")
    to = tmp_path / "lance"
    assert vlm_command("index", table, "--to", to, "--engine", "lance").code == 0
    query = ["search", to, "red", "--json", "--top", "2"]
    assert names(vlm_command(*query))[0] == "red.png"
    assert names(vlm_command(*query, "--hybrid"))[0] == "lime.png"  # the only one whose caption has the word
    assert names(vlm_command(*query, "--hybrid", "--filter", '{"text": "the sea"}')) == ["blue.png"]
    assert names(vlm_command("search", to, photos / "red.png", "--with", "frog", "--hybrid", "--json"))[0] == "lime.png"


def test_words_of_captions_are_refused_in_one_line(vlm_command: Any, index: Path, photos: Path) -> None:
    for arguments, message in [
        ((index, "red"), "expected an index of LanceDB (vlm index --engine lance), got FlatIndex"),
        ((index, photos / "red.png"), "--hybrid: expected words"),
        ((index, "red", "--min-score", "0.5"), "--min-score: expected none with --hybrid"),
    ]:
        done = vlm_command("search", *arguments, "--hybrid", "--json")
        assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
        assert message in done.err


def test_the_best_few_are_looked_at_again(vlm_command: Any, index: Path, photos: Path) -> None:
    first = names(vlm_command("search", index, "red", "--json", "--top", "2"))
    done = vlm_command("search", index, "red", "--json", "--top", "2", "--rerank", "3")
    assert names(done)[0] == "ruby.png"  # the widest of the three
    assert [set(row) for row in done.json["results"]] == [{"path", "score", "match"}] * 2
    again = names(vlm_command("search", index, "red", "--json", "--top", "4", "--rerank", "2"))
    assert set(again[:2]) == set(first)
    assert "match" in vlm_command("search", index, "red", "--rerank", "2").out
    (photos / "ruby.png").unlink()
    done = vlm_command("search", index, "red", "--json", "--top", "3", "--rerank", "3")
    assert done.code == 2
    assert [Path(row["path"]).name for row in done.json["results"]][2] == "ruby.png"
    assert "no such file" in done.err


def test_a_videos_moment_is_told(vlm_command: Any, index: Path) -> None:
    video = FlatIndex.open(index)
    video.upsert(["/videos/a.mp4"], np.eye(WIDTH, dtype=np.float32)[:1])
    video.commit()
    hits = vlm_command("search", index, "red", "--json", "--moments").json["results"]
    assert {hit["path"].endswith(".mp4"): hit.get("moment") for hit in hits} == {True: [0.5, 1.25], False: None}
    assert "0.5 to 1.2 s" in vlm_command("search", index, "red", "--moments").out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["red", "--with", "blue"], "--with: expected words beside a picture"),
        (["PHOTO", "--with", " "], "--with: expected words beside a picture"),
        (["PHOTO", "--rerank", "3"], "--rerank: expected words as the query"),
        (["PHOTO", "--with", "blue", "--rerank", "3"], "--rerank: expected words as the query"),
        (["PHOTO", "--moments"], "--moments: expected words as the query"),
    ],
)
def test_options_that_do_not_go_together(
    vlm_command: Any, index: Path, photos: Path, options: list[str], message: str
) -> None:
    done = vlm_command("search", index, *[photos / "red.png" if o == "PHOTO" else o for o in options])
    assert (done.code, len(done.complaints)) == (2, 1)
    assert message in done.err


def test_an_index_of_shorter_vectors_is_searched_with_such(
    vlm_command: Any, model: FakeModel, photos: Path, tmp_path: Path
) -> None:
    assert vlm_command("index", photos, "--to", tmp_path / "idx", "--width", "3").code == 0
    assert FlatIndex.open(tmp_path / "idx").width == 3
    assert names(vlm_command("search", tmp_path / "idx", "red", "--json"))[0] == "red.png"
    done = vlm_command("index", photos, "--to", tmp_path / "idx")
    assert (done.code, len(done.complaints)) == (2, 1)
    assert "width" in done.err
    assert "expected at most 8" in vlm_command("index", photos, "--to", tmp_path / "n", "--width", "9").err
    rows = vlm_command("embed", photos / "red.png", "--text", "red", "--width", "2", "--json").json["results"]
    assert [len(row["vector"]) for row in rows] == [2, 2]
    assert np.linalg.norm(rows[0]["vector"]) == pytest.approx(1, abs=1e-6)
    assert "width 9" in vlm_command("embed", "--text", "red", "--width", "9").err


def test_duplicates_are_grouped(vlm_command: Any, index: Path, photos: Path) -> None:
    groups = vlm_command("duplicates", index, "--threshold", "0.99", "--json").json["groups"]
    assert [sorted(Path(path).name for path in group) for group in groups] == [["red.png", "ruby.png"]]
    assert vlm_command("duplicates", index, "--threshold", "0", "--json").json["groups"] == [
        sorted(FlatIndex.open(index))
    ]
    assert "1 groups, 2 of 4 entries" in vlm_command("duplicates", index, "--threshold", "0.99").out
    assert vlm_command("duplicates", photos).code == 2


def test_pictures_are_classified(vlm_command: Any, model: FakeModel, photos: Path) -> None:
    done = vlm_command("classify", photos, "--names", "red, green,blue", "--template", "a {label}.", "--json")
    assert done.code == 0
    best = {Path(row["input"]).name: row["classes"][0]["name"] for row in done.json["results"]}
    assert best == {"red.png": "red", "lime.png": "green", "blue.png": "blue"}
    assert "red 1.000" in vlm_command("classify", photos / "red.png", "--names", "red,blue").out
    for options, message in [
        (["--names", "red"], "two different names"),
        (["--names", "a,b", "--template", "x"], "{label}"),
    ]:
        failed = vlm_command("classify", photos, *options)
        assert (failed.code, len(failed.complaints)) == (2, 1)
        assert message in failed.err

"""`vlm caption --to` and `--dense`: files that grow, that a kill leaves mendable, and that are never someone else's."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stand_in import FakeModel, bad_files

from vlm.assets import root
from vlm.media.open import Media

CLIP = root() / "data" / "samples" / "temple_and_flower.mp4"


@pytest.fixture
def captioned(model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources of all that went through the model."""
    seen: list[str] = []
    whole = FakeModel.caption

    def caption(self: FakeModel, media: Sequence[Media], *, beams: int = 1) -> list[str]:
        seen.extend(item.source for item in media)
        return whole(self, media, beams=beams)

    monkeypatch.setattr(FakeModel, "caption", caption)
    return seen


def rows(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    return [*csv.DictReader(io.StringIO(text))] if path.suffix == ".csv" else list(map(json.loads, text.splitlines()))


@pytest.fixture(params=[".jsonl", ".csv"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "out" / f"captions{request.param}"


def test_a_folder_is_captioned_once(vlm_command: Any, captioned: list[str], photos: Path, to: Path) -> None:
    done = vlm_command("caption", photos, CLIP, "--to", to, "--json")
    assert (done.code, done.json) == (0, {"written": str(to), "count": 4, "captioned": 4})
    names = [*(str(photos / name) for name in ("blue.png", "lime.png", "red.png")), str(CLIP)]
    texts = ["a picture of 22", "a picture of 21", "a picture of 20", "a clip of 4"]
    whole = [{"input": n, "caption": t, "model": "nano"} for n, t in zip(names, texts, strict=True)]
    assert rows(to) == whole
    again = vlm_command("caption", photos, CLIP, "--to", to)
    assert again.out == f"{to}: 4 captions\n"
    assert (len(captioned), rows(to)) == (4, whole)
    assert [path.name for path in to.parent.iterdir()] == [to.name]


def test_a_kill_costs_what_was_not_written(vlm_command: Any, captioned: list[str], photos: Path, to: Path) -> None:
    """Cut at every byte, the second run gives the same file."""
    vlm_command("caption", photos, "--to", to)
    whole = to.read_bytes()
    for kept in range(0, len(whole), 7):
        to.write_bytes(whole[:kept])
        captioned.clear()
        done = vlm_command("caption", photos, "--to", to)
        assert (done.code, to.read_bytes()) == (0, whole)
        complete = max(0, whole[:kept].count(b"\n") - (to.suffix == ".csv"))
        assert len(captioned) == 3 - complete
        assert ("a last row that was not whole" in done.err) == (not whole[:kept].endswith(b"\n") and kept > 0)


def test_a_kill_within_a_quoted_text(
    vlm_command: Any, model: FakeModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "captions.csv"
    monkeypatch.setattr(FakeModel, "caption", lambda self, media, **_: [f'{m.source}:\n"one", two\n' for m in media])
    vlm_command("caption", photos, "--to", to)
    whole = to.read_bytes()
    assert [row["caption"] for row in rows(to)] == [f'{row["input"]}:\n"one", two\n' for row in rows(to)]
    for kept in range(0, len(whole), 5):
        to.write_bytes(whole[:kept])
        assert vlm_command("caption", photos, "--to", to).code == 0
        assert to.read_bytes() == whole


def test_what_failed_is_told_and_tried_again(
    vlm_command: Any, captioned: list[str], photos: Path, to: Path, tmp_path: Path
) -> None:
    bad = bad_files(photos / "bad")
    done = vlm_command("caption", photos, tmp_path / "none.png", tmp_path / "none.tar", "--to", to, "--json")
    assert (done.code, done.json["count"]) == (2, 3)
    assert [Path(row["input"]).name for row in done.json["skipped"]] == ["none.tar", *bad, "none.png"]
    assert len(rows(to)) == 3
    first = next(iter(bad.values()))
    first.write_bytes((photos / "red.png").read_bytes())
    again = vlm_command("caption", photos, "--to", to, "--json")
    assert (again.code, again.json["captioned"], len(again.json["skipped"])) == (2, 1, len(bad) - 1)
    assert rows(to)[-1]["input"] == str(first)


def test_lists_tables_and_shards(vlm_command: Any, captioned: list[str], photos: Path, to: Path) -> None:
    (photos / "list.txt").write_text("red.png\nblue.png\nred.png\n")
    (photos / "table.csv").write_text("name,photo\na,lime.png\n")
    with tarfile.open(photos / "shard.tar", "w") as shard:
        shard.add(photos / "red.png", "first.png")
    sources = [photos / name for name in ("list.txt", "table.csv", "shard.tar")]
    done = vlm_command("caption", sources[0], sources[2], "--to", to, "--json")
    assert (done.code, done.json["count"]) == (0, 3)
    assert any("named again, left out" in row["note"] for row in done.json["notes"])
    assert vlm_command("caption", sources[1], "--column", "photo", "--to", to).code == 0
    assert [Path(row["input"]).name for row in rows(to)] == ["red.png", "blue.png", "shard.tar#first", "lime.png"]


@pytest.mark.parametrize(
    "content",
    [b"path,label\na.png,cat\n", b"my notes", b'{"path": "a.png"}\n', b"[1]\n", b"\n", b"\xff\xfe\n", b'"unclosed\n'],
)
def test_a_file_of_something_else_stays_as_it_is(
    vlm_command: Any, captioned: list[str], photos: Path, to: Path, content: bytes
) -> None:
    to.parent.mkdir()
    to.write_bytes(content)
    done = vlm_command("caption", photos, "--to", to)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert f"{to}: row 1: expected a caption (input, caption, model)" in done.err
    assert (to.read_bytes(), captioned) == (content, [])


def test_another_model_does_not_go_on_with_it(vlm_command: Any, captioned: list[str], photos: Path, to: Path) -> None:
    to.parent.mkdir()
    begun = {".csv": "input,caption,model\na.png,A cat.,base\n"}
    text = begun.get(to.suffix, '{"input": "a.png", "caption": "A cat.", "model": "base"}\n')
    to.write_text(text)
    done = vlm_command("caption", photos, "--to", to)
    assert (done.code, to.read_text(), captioned) == (2, text, [])
    assert "was captioned by base, expected the same, got nano" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "x.txt"), "x.txt: expected a file of .jsonl or .csv, got .txt"),
        (("--column", "photo"), "expected --to FILE"),
        (("--window", "2"), "expected --dense"),
        (("--dense", "--to", "x.csv"), "x.csv: expected a file of .srt or .vtt"),
        (("--dense", "--column", "a"), "--dense: expected one clip"),
        (("--dense", "--window", "0"), "window: expected seconds above"),
    ],
)
def test_options_that_do_not_fit(vlm_command: Any, captioned: list[str], options: Any, message: str) -> None:
    done = vlm_command("caption", CLIP, *options)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert message in done.err


def test_captions_by_beam_search_are_not_added_to_others(vlm_command: Any, model: FakeModel, to: Path) -> None:
    assert vlm_command("caption", CLIP, "--beams", "3").out == "3 beams over a clip of 4\n"
    assert vlm_command("caption", CLIP, "--beams", "3", "--to", to).code == 0
    assert [(row["caption"], row["model"]) for row in rows(to)] == [("3 beams over a clip of 4", "nano, 3 beams")]
    refused = vlm_command("caption", CLIP, "--to", to)
    assert (refused.code, len(refused.complaints)) == (2, 1)
    assert "was captioned by nano, 3 beams, expected the same, got nano" in refused.err


def test_dense(vlm_command: Any, model: FakeModel, tmp_path: Path) -> None:
    done = vlm_command("caption", CLIP, "--dense", "--json", "--frames", "3")
    first, second = done.json["results"]
    assert (first["start"], first["end"], second["start"]) == (0, 2.0, 2.0)
    assert {row["caption"] for row in (first, second)} == {"a clip of 3"}
    shown = vlm_command("caption", CLIP, "--dense").out.split()
    assert shown[:3] == ["start", "end", "caption"]
    assert "2.00" in shown
    windows = vlm_command("caption", CLIP, "--dense", "--window", "0.5", "--to", tmp_path / "x.vtt", "--json").json
    assert windows["written"] == str(tmp_path / "x.vtt")
    assert len(windows["results"]) == 8
    assert (
        vlm_command("caption", CLIP, "--dense", "--to", tmp_path / "x.srt").out == f"{tmp_path / 'x.srt'}: 2 captions\n"
    )
    assert "00:00:00,000 --> 00:00:02,000\na clip of 4\n" in (tmp_path / "x.srt").read_text()
    assert (tmp_path / "x.vtt").read_text().count(" --> ") == 8

"""What a command leaves out or changes it tells, on stderr and in its JSON; what it skips makes it exit with 2."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stand_in import FakeModel


@pytest.fixture
def mixed(photos: Path) -> Path:
    """Three pictures, an animation, and files that are none."""
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    (photos / "song.mp3").write_bytes(b"ID3" + bytes(20))
    (photos / "captions.txt").write_text("words")
    return photos


COMMANDS = {
    "caption": ["caption", "FOLDER"],
    "classify": ["classify", "FOLDER", "--names", "red,blue"],
    "embed": ["embed", "FOLDER", "--to", "OUT.safetensors"],
    "embed a folder": ["embed", "FOLDER", "--to", "OUT.parquet"],
    "index": ["index", "FOLDER", "--to", "OUT.index"],
    "demo": ["demo", "--images", "FOLDER", "--to", "OUT"],
}


def arguments(command: str, folder: Path, tmp_path: Path) -> list[str]:
    return [part.replace("FOLDER", str(folder)).replace("OUT", str(tmp_path / "out")) for part in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_notes_are_said_and_listed(
    vlm_command: Any, mixed: Path, model: FakeModel, tmp_path: Path, command: str
) -> None:
    done = vlm_command(*arguments(command, mixed, tmp_path), "--json")
    assert done.code == 0, done.err
    notes = [row["note"] for row in done.json["notes"]]
    wanted = ["no pictures or clips, left out: files of .mp3", "files of .txt", "several frames, the first one is used"]
    for words in wanted:
        assert any(words in note for note in notes), notes
        assert f"{words}\n" in done.err
    assert len(notes) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_skipped_items_make_it_2(vlm_command: Any, mixed: Path, model: FakeModel, tmp_path: Path, command: str) -> None:
    (mixed / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = vlm_command(*arguments(command, mixed, tmp_path), "--json")
    assert done.code == 2
    assert [Path(next(iter(row.values()))).name for row in done.json["skipped"]] == ["broken.png"]
    assert len(done.json["notes"]) == 3


@pytest.mark.parametrize("command", ["caption", "classify", "embed", "index", "ask", "match", "search"])
def test_an_empty_path_is_not_the_working_folder(
    vlm_command: Any, photos: Path, model: FakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """A variable of the shell that is not set."""
    monkeypatch.chdir(photos)
    more = {"classify": ["--names", "a,b"], "index": ["--to", tmp_path / "i"], "ask": ["What?"], "match": ["a cat"]}
    first = [tmp_path / "i"] if command == "search" else []
    done = vlm_command(command, *first, "", *more.get(command, []))
    assert (done.code, done.out) == (2, "")
    assert "empty" in done.err
    assert len(done.complaints) == 1


def test_good_pictures_beside_a_name_that_is_too_long(vlm_command: Any, photos: Path, model: FakeModel) -> None:
    done = vlm_command("caption", photos / "red.png", "w" * 300 + ".png", "--json")
    assert done.code == 2
    assert [Path(row["input"]).name for row in done.json["results"]] == ["red.png"]
    assert "File name too long" in done.json["skipped"][0]["reason"]


def test_names_that_are_no_text(vlm_command: Any, photos: Path, model: FakeModel, tmp_path: Path) -> None:
    latin = os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png")
    (photos / "red.png").rename(latin)
    shown = str(photos / "caf\\xe9.png")
    for given in (latin, shown):
        done = vlm_command("caption", given, "--json")
        assert (done.code, done.json["results"][0]["input"]) == (0, shown)
    assert shown in [row["input"] for row in vlm_command("caption", photos, "--json").json["results"]]
    done = vlm_command("index", photos, "--to", tmp_path / "i", "--json")
    assert (done.code, done.json["indexed"], done.json["skipped"]) == (0, 3, [])
    assert vlm_command("index", photos, "--to", tmp_path / "i", "--json").json["embedded"] == 0
    hits = vlm_command("search", tmp_path / "i", "red", "--rerank", "3", "--json").json["results"]
    assert {shown} < {hit["path"] for hit in hits}
    assert all("match" in hit for hit in hits)
    assert vlm_command("search", tmp_path / "i", shown, "--top", "1", "--json").json["results"][0]["path"] == shown


def test_an_existing_path_is_a_path(
    vlm_command: Any, photos: Path, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    vlm_command("index", photos, "--to", tmp_path / "i")
    (photos / "red.png").rename(photos / "a red one")
    search = ["search", tmp_path / "i", "--top", "1", "--json"]
    best = vlm_command(*search, "a red one").json["results"][0]
    assert (Path(best["path"]).name, best["score"]) == ("red.png", 1.0)
    for absent in ("photo.heic", "clip.vob", "picture.tga"):
        done = vlm_command(*search, absent)
        assert done.code == 2
        assert "no such file" in done.err
    (photos / "cat").mkdir()
    done = vlm_command(*search, "cat")
    assert (done.code, len(done.json["results"])) == (0, 1)
    assert "there is a folder of this name" in done.err
    (photos / "words.txt").write_text("words")
    assert "expected an image" in vlm_command(*search, "words.txt").err


def test_the_helps_own_filter_finds_years_of_a_csv(
    vlm_command: Any, photos: Path, model: FakeModel, tmp_path: Path
) -> None:
    rows = ["path,year,ok,score,taken,zip", "red.png,2019,true,0.5,2024-05-01,02134"]
    rows += ["lime.png,2022,false,,2020-01-01,", "blue.png,,,,,12"]
    (photos / "t.csv").write_text("\n".join(rows))
    vlm_command("index", photos / "t.csv", "--to", tmp_path / "i")

    def found(where: dict[str, Any]) -> set[str]:
        done = vlm_command("search", tmp_path / "i", "red", "--filter", json.dumps(where), "--json")
        return {Path(hit["path"]).stem for hit in done.json["results"]}

    assert found({"year": {"gte": 2020}}) == {"lime"}
    assert found({"taken": {"lt": "2022"}}) == {"lime"}  # and not what has no date
    assert found({"ok": True}) == {"red"}
    assert found({"score": {"lte": 0.5}}) == {"red"}
    assert found({"zip": "02134"}) == {"red"}
    assert found({"zip": "12"}) == {"blue"}


def test_numbers_that_json_has_not_are_no_answer(vlm_command: Any, photos: Path, model: FakeModel) -> None:
    model.match = lambda media, texts: [float("nan")] * len(media)  # type: ignore[method-assign]
    done = vlm_command("match", photos / "red.png", "a cat", "--json")
    assert (done.code, done.out) == (1, "")
    assert "NaN" in done.err

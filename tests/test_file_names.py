"""Names of files are bytes; as texts they are told apart and lead back to the file."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vlm.files import name_path, name_text, path_meant
from vlm.notes import Notes


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_any_name_has_a_text_that_leads_back(name: bytes) -> None:
    path = os.fsdecode(name)
    text = name_text(path)
    assert text.encode().decode() == text
    assert text.isprintable() or not text.isascii()
    assert os.fsencode(name_path(text)) == name


@given(st.text(min_size=1).filter(lambda name: "\0" not in name))
def test_a_name_that_looks_like_an_escape_is_not_one(name: str) -> None:
    path = os.fsdecode(name.encode(errors="ignore") + b"\\xe9")
    assert name_path(name_text(path)) == path
    assert name_text(path) != name_text(os.fsdecode(name.encode(errors="ignore") + b"\xe9"))


def test_plain_names_stay_as_they_are() -> None:
    for name in ("photos/a b.jpg", "猫\u2028.png", "C:\\photos\\x.png", "a\\xg1"):
        assert name_text(name) == name


def test_what_a_user_types_is_the_file_that_is_there(tmp_path: Path) -> None:
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(latin).touch()
    assert path_meant(str(tmp_path / "caf\\xe9.png")) == latin
    (tmp_path / "caf\\xe9.png").touch()
    assert path_meant(str(tmp_path / "caf\\xe9.png")) == str(tmp_path / "caf\\xe9.png")
    assert path_meant("none\\xe9") == "none\\xe9"


def test_notes_that_are_alike_are_added_up() -> None:
    notes = Notes()
    notes.add("a.jpg", "8000x6000 decoded at 4000x3000")
    notes.extend("b.jpg", ["b.jpg: 9000x6000 decoded at 4500x3000"])
    notes.add("folder", "files of .mp3", 3)
    notes.add("folder", "files of .mp4")
    assert notes.lines() == [
        "a.jpg: 8000x6000 decoded at 4000x3000 (1 more like it)",
        "folder: files of .mp3 (2 more like it)",
        "folder: files of .mp4",
    ]
    assert [note["count"] for note in notes.as_json()] == [2, 3, 1]

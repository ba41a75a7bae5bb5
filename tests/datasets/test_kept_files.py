"""Files that come out of others: pictures in the cache, and the data a package carries."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from original_files import picture, pictures, put, put_lines
from reading import card

from vlm.datasets.readers import media, wheel
from vlm.errors import BadInput


def test_the_cache_keeps_a_picture_once(own: Path, tmp_path: Path) -> None:
    first = media.keep(picture(0), "a")
    assert media.keep(picture(0), "b") == first
    put(first, b"cut short")
    assert media.keep(picture(0), "c").read_bytes() == picture(0)
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1


def fetched(tmp_path: Path, *members: tuple[str, bytes]) -> Callable[..., Path]:
    def fetch(*_: object, **__: object) -> Path:
        with zipfile.ZipFile(tmp_path / "own.whl", "w") as archive:
            for name, content in members:
                archive.writestr(name, content)
        return tmp_path / "own.whl"

    return fetch


def test_a_wheel(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only data of the named folder comes out of it, once; a folder of the user's own goes first."""
    carried = {"requirement": "own==1", "sha256": "0" * 64, "folder": "pkg/data"}
    other = card("a.jsonl", folder="other", wheel=carried)
    content = (("pkg/data/a.jsonl", b'{"image": "0.png"}'), ("pkg/data/0.png", picture(0)), ("pkg/data/run.py", b"x"))
    monkeypatch.setattr(wheel, "fetch_wheel", fetched(tmp_path, *content, ("pkg/0.png", b"elsewhere")))
    other = other.model_copy(update={"splits": {"train": None}})
    (example,) = other.read(None)
    assert example.pictures[0].read_bytes() == picture(0)
    assert sorted(p.name for p in example.pictures[0].parent.iterdir()) == ["0.png", "a.jsonl"]
    assert not (tmp_path / "own.whl").exists()
    monkeypatch.setattr(wheel, "fetch_wheel", None)
    assert other.read(tmp_path) == [example]
    put_lines(tmp_path / "other" / "a.jsonl", {"image": "1.png"})
    pictures(tmp_path / "other", "1.png")
    assert other.read(tmp_path)[0].pictures == (tmp_path / "other" / "1.png",)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("pkg/data/../../../escaped.png", b"x")], "leads out of"),
        ([("pkg/other.png", b"x")], "0 files of data below pkg/data"),
        ([("pkg/data/0.png", b"x" * 200)], "has 200 bytes"),
    ],
)
def test_a_hostile_wheel(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[tuple[str, bytes]], words: str
) -> None:
    monkeypatch.setattr(wheel, "fetch_wheel", fetched(tmp_path, *members))
    monkeypatch.setattr(wheel, "MAX_MEDIA_BYTES", 100)
    carried = wheel.Wheel(requirement="own==1", sha256="0" * 64, folder="pkg/data")
    with pytest.raises(BadInput, match=words):
        carried.unpacked("own")
    assert not list(tmp_path.rglob("escaped*"))
    assert not list((tmp_path / "cache").rglob("*.png"))

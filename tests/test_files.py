"""A write that fails leaves what was there, and leaves nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm.files import atomic_folder, atomic_path, atomic_write


@pytest.mark.parametrize(("content", "expected"), [(b"\x00\xff", b"\x00\xff"), ("naïve", "naïve".encode())])
def test_write_and_overwrite(tmp_path: Path, content: bytes | str, expected: bytes) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    atomic_write(path, "old")
    atomic_write(path, content)
    assert path.read_bytes() == expected
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644, "others may read it, unlike a temporary file"


def test_path_keeps_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("old")

    def stop_half_way() -> None:
        with atomic_path(path) as temporary:
            assert temporary.suffix == path.suffix, "writers that look at the suffix work"
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for name in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / name).write_text(name)
    assert [file.name for file in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_folder_keeps_the_old_one_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "weights").write_text("old")

    def stop_half_way() -> None:
        with atomic_folder(path) as temporary:
            (temporary / "weights").write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert (path / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

"""The request cache where its file or folder is not what it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm.errors import BadInput
from vlm.evaluation.cache import RequestCache


def test_a_damaged_cache_says_so_when_it_is_read_or_written(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    keys = [str(i) for i in range(200)]
    cache = RequestCache(path)
    cache.put(dict.fromkeys(keys, b"x" * 900))
    cache.close()
    data = bytearray(path.read_bytes())
    data[4096:30000] = b"\xaa" * (30000 - 4096)
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"requests\.sqlite: damaged, or no request cache: .*malformed; delete it"):
        RequestCache(path).get(keys)
    with pytest.raises(BadInput, match=r"requests\.sqlite: damaged, or no request cache"):
        RequestCache(path).put(dict.fromkeys(keys, b"y"))


def test_a_value_that_is_damaged_is_not_there(tmp_path: Path) -> None:
    """SQLite does not see a changed byte inside a value; an answer must not be changed by it."""
    path = tmp_path / "requests.sqlite"
    cache = RequestCache(path)
    cache.put({"a": b"a dog in the snow", "b": b"a cat"})
    cache.close()
    data = path.read_bytes()
    assert data.count(b"a dog in") == 1
    path.write_bytes(data.replace(b"a dog in", b"a log in"))
    cache = RequestCache(path)
    assert cache.get(["a", "b"]) == {"b": b"a cat"}
    cache.put({"a": b"a dog in the snow"})
    assert cache.get(["a"]) == {"a": b"a dog in the snow"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="run: cannot be made: Not a directory"):
        RequestCache(tmp_path / "file/run/requests.sqlite")


def test_a_cache_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be used: unable to open"):
        RequestCache(tmp_path)

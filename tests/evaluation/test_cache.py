"""The request cache where its file or folder is not what it should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from squares import FakeModel, write_benchmark

from vlm.errors import BadInput
from vlm.evaluation.cache import RequestCache
from vlm.evaluation.run import Options, evaluate


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


def test_one_cache_for_several_runs(tmp_path: Path) -> None:
    rows = [{"color": color, "question": "What color?", "answers": [color]} for color in ("red", "blue")]
    card = write_benchmark(tmp_path / "data", rows, kind="vqa")
    first, second, other = FakeModel(), FakeModel(), FakeModel(weights="w2")
    for name, model in (("a", first), ("b", second), ("c", other)):
        options = Options(str(tmp_path / "data"), output=tmp_path / name, cache=tmp_path / "answers")
        evaluate(model, [card], options)  # type: ignore[arg-type]
    assert (first.asked, second.asked, other.asked) == (2, 0, 2)
    assert not (tmp_path / "a/requests.sqlite").exists()
    results = [(tmp_path / name / "squares-test/results.json").read_bytes() for name in "ab"]
    assert results[0] == results[1]

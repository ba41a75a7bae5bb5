"""Files are named alike on every machine and found again on this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm.evaluation.portable_paths import portable_name, resolve_name
from vlm.weights.parts import cache_dir


@pytest.mark.parametrize(
    ("path", "data", "name"),
    [
        ("/data/flickr8k/1.jpg", "/data", "flickr8k/1.jpg"),
        ("/here/cache/datasets/media/8d/39.png", "/data", "cache:datasets/media/8d/39.png"),
        ("/here/cache/datasets/media/8d/39.png", None, "cache:datasets/media/8d/39.png"),
        ("/here/cache/sets/a/1.jpg", "/here/cache/sets", "a/1.jpg"),
        ("/elsewhere/1.jpg", "/data", "/elsewhere/1.jpg"),
    ],
)
def test_a_name_leads_back_to_its_file(monkeypatch: pytest.MonkeyPatch, path: str, data: str | None, name: str) -> None:
    monkeypatch.setenv("VLM_CACHE", "/here/cache")
    folder = None if data is None else Path(data)
    assert portable_name(Path(path), folder) == name
    assert resolve_name(name, folder or Path()) == Path(path)


def test_another_machine_finds_it_in_its_own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    name = portable_name(cache_dir() / "datasets/1.png", None)
    monkeypatch.setenv("VLM_CACHE", "/other")
    assert resolve_name(name, Path("/data")) == Path("/other/datasets/1.png")

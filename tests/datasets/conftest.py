from __future__ import annotations

from pathlib import Path

import pytest
from original_files import pictures


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `own` of a data folder, with two pictures; a cache of the test's own."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    pictures(tmp_path / "own", "0.png", "1.png")
    return tmp_path / "own"

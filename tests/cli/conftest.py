"""The command line in this process, with a small model in the real one's place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stand_in import WIDTH, Done, FakeModel

from vlm.cli import main

Write = Callable[[str, Any], Path]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """What `vlm.api.load` gives."""
    import vlm

    fake, api = FakeModel(), ModuleType("vlm.api")
    api.load = lambda name, **options: fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vlm.api", api)
    monkeypatch.setattr(vlm, "api", api, raising=False)
    for room in ("session", "retrieval", "indexing", "embedding"):
        monkeypatch.setattr(f"vlm.cli.{room}.space_of", lambda name: ("nano-1", WIDTH))
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


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a value as JSON, or bytes as they are."""

    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return written


@pytest.fixture
def caption(vlm_command: Any, write: Write) -> Callable[..., Any]:
    def run(hypotheses: Any, references: Any, *options: str) -> Any:
        files = ["--hypotheses", write("h.json", hypotheses), "--references", write("r.json", references)]
        return vlm_command("score", "caption", *files, *options)

    return run


@pytest.fixture
def vqa(vlm_command: Any, write: Write) -> Callable[..., Any]:
    def run(predictions: Any, answers: Any, *options: str, protocol: str = "vqav2") -> Any:
        files = ["--predictions", write("p.json", predictions), "--answers", write("a.json", answers)]
        return vlm_command("score", "vqa", *files, "--protocol", protocol, *options)

    return run


@pytest.fixture
def retrieval(vlm_command: Any, tmp_path: Path) -> Callable[..., Any]:
    def run(*options: str, **arrays: Any) -> Any:
        np.savez(tmp_path / "s.npz", **arrays)
        return vlm_command("score", "retrieval", "--similarity", tmp_path / "s.npz", *options)

    return run

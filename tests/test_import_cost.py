"""What an import brings along, asked of a fresh Python: modules, not seconds, which depend on the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vlm

pytestmark = pytest.mark.process

SLOW = ["torchvision", "transformers", "timm", "open_clip", "scipy", "matplotlib", "sklearn", "onnx", "gguf"]
"""Torch takes a second to import; each of these takes a tenth of one to two more."""
HOUSE = Path(vlm.__file__).parent
BY_NAME = "vlm.vision.towers."
"""Each module below it is about one library, and is imported when a tower of that library is built."""
SERVER = """
import sys, time
from pathlib import Path
from starlette.testclient import TestClient
import vlm.cli.app, vlm.cli.serve, vlm.cli.session
from vlm.server.http.settings import Settings
from vlm.server.retrieval import run
from vlm.server.retrieval.app import create_app
from vlm.server.embedding.embedder import EMBEDDERS, loaded

app = create_app(Settings(root=Path(sys.argv[1]), page=False), [EMBEDDERS["colours"]])
with TestClient(app, base_url="http://127.0.0.1") as client:
    while client.get("/readyz").status_code != 200:
        time.sleep(0.01)
"""


def brought(code: str, *arguments: object) -> set[str]:
    """The top-level packages that a fresh Python has imported once `code` has run."""
    code += "\nimport sys; print('brought', *{name.split('.')[0] for name in sys.modules})"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def modules(*rooms: str) -> list[str]:
    """Every module below these rooms of the package."""
    files = [file for room in rooms for file in sorted((HOUSE / room).rglob("*.py"))]
    names = [".".join(file.relative_to(HOUSE.parent).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names if not name.startswith(BY_NAME) or "weights" in name]


def test_the_package_itself_brings_no_torch() -> None:
    assert not brought("import vlm") & {"torch", "numpy", "PIL", "pydantic", *SLOW}


@pytest.mark.parametrize("imported", [["vlm.vectors"], ["vlm.index"], modules("metrics")], ids=lambda names: names[0])
def test_vectors_and_metrics_need_no_torch(imported: list[str]) -> None:
    assert not brought(f"import {', '.join(imported)}") & {"torch", "PIL", *SLOW}


PARTS = modules("alignment", "datasets", "language", "media", "projector", "vision", "weights")


def test_the_parts_bring_torch_and_no_library_of_models() -> None:
    assert len(PARTS) > 60
    assert not brought(f"import {', '.join(PARTS)}") & set(SLOW)


def test_the_facade_brings_torch_and_no_library_of_models() -> None:
    assert not brought("import vlm.api") & set(SLOW)


def test_a_server_without_a_model_is_ready_without_a_library_of_models(tmp_path: Path) -> None:
    """Torch it needs: the index's exact scan is in bfloat16."""
    pytest.importorskip("fastapi", reason="fastapi is not installed (pip: vlm[serve])")
    assert not brought(SERVER, tmp_path) & set(SLOW)


WITH_A_MODEL = SERVER.replace("page=False)", 'page=False, engine="flat")').replace(
    'EMBEDDERS["colours"]', 'lambda: loaded("nano")'
)


@pytest.mark.weights
def test_a_server_of_a_model_loads_the_parts_it_uses(tmp_path: Path) -> None:
    """Each of these is tens of megabytes: other engines, pages, libraries of towers and formats."""
    pytest.importorskip("fastapi", reason="fastapi is not installed (pip: vlm[serve])")
    found = brought(WITH_A_MODEL, tmp_path)
    assert {"torch", "timm", "transformers"} <= found
    unused = {"open_clip", "matplotlib", "onnx", "gguf", "sklearn", "lancedb", "qdrant_client", "gradio", "ray", "peft"}
    assert not found & unused

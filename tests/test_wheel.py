"""The built wheel, installed where there is no clone, finds its cards and runs the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
# Without PYTHONPATH, by which the clone would be found before the wheel.
CLEAN = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; dependencies are read from this one's folder, whose editable install is not."""
    home = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", home, ROOT], check=True, cwd=home
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "env"], check=True)
    python = home / "env" / "bin" / "python"
    (wheel,) = home.glob("vlm-*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True, cwd=home)
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    # A plain path in a .pth file does not run the .pth files inside that path, so the clone stays out of sight.
    (Path(where.stdout.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "env" / "bin"


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [installed / "vlm", *arguments], cwd=folder, env=CLEAN, capture_output=True, text=True, timeout=600
    )


def test_the_wheel_carries_the_cards(installed: Path, tmp_path: Path) -> None:
    code = "import vlm.assets as a; print(a.root()); print(sorted(a.cards('configs/models')), sorted(a.cards('eval')))"
    done = subprocess.run(
        [installed / "python", "-c", code], cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=True
    )
    root, cards = done.stdout.splitlines()
    assert str(installed.parent) in root
    assert "'nano'" in cards
    assert "'flickr8k-caption'" in cards


@pytest.mark.weights
def test_the_wheel_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "demo", "--to", "out", "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert (tmp_path / "out" / "results.json").is_file()

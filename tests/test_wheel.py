"""The built wheel, installed where there is no clone, finds its cards and runs the demo."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from wheels_installed import PIP, environment

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
# Without PYTHONPATH, by which the clone would be found before the wheel.
CLEAN = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel."""
    home = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", home, ROOT], check=True, cwd=home
    )
    (wheel,) = home.glob("vlm-*.whl")
    return environment(home, wheel)


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

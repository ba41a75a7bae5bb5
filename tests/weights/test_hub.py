"""Models by the name of their repository on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vlm
from vlm.errors import BadInput, VlmError
from vlm.weights import hub
from vlm.weights.hub import is_repository


@pytest.fixture(autouse=True)
def _network_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of another test may have turned it off, for its process."""
    for variable in ("VLM_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


def test_what_is_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert is_repository("deepseek-ai/deepseek-vl2-tiny")
    assert is_repository("owner/name@0123abc")
    for other in ("nano", "models/mine", "./a/b", "../a", "/a/b", "a/b/c", "cards/mine.yaml", "~/a", "a b/c"):
        assert not is_repository(other), other


def test_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    lines: list[str] = []
    assert hub.snapshot("deepseek-ai/deepseek-vl2-tiny@abc", report=lines.append) == tmp_path
    repository, options = asked[0]
    assert (repository, options["revision"]) == ("deepseek-ai/deepseek-vl2-tiny", "abc")
    allowed = ["*.json", "*.safetensors", "chat_template.jinja"]
    assert options["allow_patterns"] == allowed, "no code is fetched, and templates are filled in a sandbox"
    assert not options["local_files_only"]
    assert lines == ["deepseek-ai/deepseek-vl2-tiny: asking the hub"]
    with pytest.raises(BadInput, match=r"expected a model's folder with a config\.json"):
        vlm.load("deepseek-ai/deepseek-vl2-tiny", offline=True)
    assert asked[1][1]["local_files_only"]


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(repository: str, **options: Any) -> str:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(VlmError, match=r"^hub someone/model: no route to the hub$"):
        vlm.load("someone/model")
    with pytest.raises(VlmError, match="not on this machine, and the network is off"):
        vlm.load("someone/model", offline=True)
    with pytest.raises(BadInput, match=r"cards/none\.yaml: no such file"):
        vlm.load("cards/none.yaml")

"""Whatever a chat server's own schema allows, and what it does not, is answered without a fault of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chatting import HELLO, Script, chatting

from vlm.engine.engine import Engine
from vlm.engine.settings import EngineSettings
from vlm.facade import Model
from vlm.server.chat.settings import ChatLimits, ChatSettings

pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip: vlm[dev])")
from fuzzing import fuzzed


def test_the_schema_finds_no_fault(tiny_model: Model, media: Path) -> None:
    engine = Script()

    def there(case: Any) -> None:
        """The model that there is, a conversation that fits it, and no wish that every model refuses."""
        if case.path_parameters:
            case.path_parameters["name"] = "tiny"
        if isinstance(case.body, dict):
            case.body.pop("model", None)
            for name in ("guided_choice", "guided_regex", "guided_grammar", "tools", "tool_choice", "moderation"):
                case.body.pop(name, None)
            if "messages" in case.body:
                case.body["messages"] = HELLO

    limits = ChatLimits(json_bytes=2**20, body_bytes=2**20)
    with chatting(tiny_model, engine, ChatSettings(media=(media,), limits=limits)) as client:
        assert fuzzed(client, there) > 200
    assert engine.asked  # some of it came through


def test_the_schema_finds_no_fault_with_sessions(tiny_model: Model, tmp_path: Path) -> None:
    """With the real engine, whose state they are; some of them are there."""
    engine = Engine(tiny_model.model, tiny_model.processor, EngineSettings()).start()
    limits = ChatLimits(json_bytes=2**20, body_bytes=2**20, sessions=5)

    def there(case: Any) -> None:
        if case.path_parameters:
            case.path_parameters["name"] = "kept"
        if isinstance(case.body, dict) and "messages" in case.body:
            case.body.pop("model", None)
            case.body["messages"] = HELLO

    with chatting(tiny_model, engine, ChatSettings(sessions=tmp_path, limits=limits)) as client:
        assert client.post("/v1/sessions/kept", json={"messages": HELLO}).status_code == 200
        assert fuzzed(client, there, "/v1/sessions") > 50
        assert client.get("/v1/sessions").status_code == 200
    engine.close()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".safetensors"}

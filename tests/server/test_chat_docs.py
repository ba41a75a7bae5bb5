"""What docs/chat-api.md shows is sent as it stands there, in order."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from chatting import Script, chatting
from serving import REPOSITORY, as_shown

from vlm.facade import Model
from vlm.server.chat.settings import ChatSettings

PAGE = REPOSITORY / "docs" / "chat-api.md"
SETTINGS = ChatSettings(media=(REPOSITORY / "data" / "samples",))


@pytest.mark.process
def test_the_requests_shown_are_answered(tiny_model: Model) -> None:
    with chatting(tiny_model, Script(), SETTINGS, name="nano") as client:
        assert as_shown(PAGE, client) > 7


@pytest.mark.process
def test_the_python_shown_runs(tiny_model: Model) -> None:
    pytest.importorskip("openai", reason="openai is not installed (pip: vlm[dev])")
    pytest.importorskip("llguidance", reason="llguidance is not installed (pip: vlm[serve])")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    engine = Script()
    with chatting(tiny_model, engine, SETTINGS, name="nano") as client:
        code = "".join(blocks).replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert (done.returncode, done.stdout) == (0, "A red square."), done.stderr
    assert engine.asked[-1].constraint is not None


def test_every_route_and_field_is_in_the_document() -> None:
    from vlm.server.chat.app import OFFER
    from vlm.server.chat.asked import Asked
    from vlm.server.chat.completion_schemas import ChatRequest
    from vlm.server.http.state import state

    text = PAGE.read_text(encoding="utf-8")
    for route in (route for router in (state, *OFFER.routers) for route in router.routes):
        path = re.sub(":parts?}", "}", getattr(route, "path"))  # noqa: B009
        assert path in text, path
    said = {
        "model",
        "messages",
        "functions",
        "function_call",
        "audio",
        "web_search_options",
        "tool_choice",
        "moderation",
    }
    alike = {"prompt_cache_options", "prompt_cache_retention"}
    missing = {name for name in {*Asked.model_fields, *ChatRequest.model_fields} - said - alike if name not in text}
    assert missing == set()

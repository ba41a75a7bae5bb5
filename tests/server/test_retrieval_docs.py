"""What docs/retrieval-api.md shows is sent as it stands there, in order."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import REPOSITORY, served

from vlm.server.http.settings import Settings

PAGE = REPOSITORY / "docs" / "retrieval-api.md"


@pytest.mark.process
def test_the_requests_shown_are_answered(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    lines = re.findall(r"^curl .*$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    assert len(lines) > 8
    with served(Settings(root=tmp_path, media=(REPOSITORY / "data" / "samples",))) as client:
        for line in lines:
            words = shlex.split(line.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/")))
            if "--json" in words:  # older ones than 7.82 do not have it
                words[words.index("--json")] = "--data"
                words += ["--header", "Content-Type: application/json"]
            done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=True)
            assert "error" not in json.loads(done.stdout), (line, done.stdout)


def test_every_route_is_in_the_document() -> None:
    from vlm.server.http.state import state
    from vlm.server.retrieval.app import OFFER

    text = PAGE.read_text(encoding="utf-8")
    for route in (route for router in (state, *OFFER.routers) for route in router.routes):
        path = getattr(route, "path").replace(":parts}", "}").replace(":part}", "}")  # noqa: B009
        assert path in text or f"...{path.removeprefix('/v1/collections/{name}')}" in text, path

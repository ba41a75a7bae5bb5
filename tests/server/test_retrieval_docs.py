"""What docs/retrieval-api.md shows is sent as it stands there, in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import REPOSITORY, as_shown, served

from vlm.server.http.settings import Settings

PAGE = REPOSITORY / "docs" / "retrieval-api.md"


@pytest.mark.process
def test_the_requests_shown_are_answered(tmp_path: Path) -> None:
    with served(Settings(root=tmp_path, media=(REPOSITORY / "data" / "samples",))) as client:
        assert as_shown(PAGE, client) > 8


def test_every_route_is_in_the_document() -> None:
    from vlm.server.http.state import state
    from vlm.server.retrieval.app import OFFER

    text = PAGE.read_text(encoding="utf-8")
    for route in (route for router in (state, *OFFER.routers) for route in router.routes):
        path = getattr(route, "path").replace(":parts}", "}").replace(":part}", "}")  # noqa: B009
        assert path in text or f"...{path.removeprefix('/v1/collections/{name}')}" in text, path

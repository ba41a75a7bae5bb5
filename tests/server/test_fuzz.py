"""Whatever the API's own schema allows, and what it does not, is answered without a fault of the server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from serving import served, unit

from vlm.server.http.settings import Limits, Settings

pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip: vlm[dev])")
from fuzzing import fuzzed


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    limits = Limits(json_bytes=2**20, body_bytes=2**20, batch=8, top=50)
    with served(Settings(root=tmp_path_factory.mktemp("root"), limits=limits)) as client:
        client.post("/v1/collections", json={"name": "c"})
        yield client


def test_the_schema_finds_no_fault(running: httpx.Client) -> None:
    def there(case: Any) -> None:
        """Else few would get further than there being no such thing."""
        if "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = "c"
            if not running.get("/v1/collections/c").is_success:
                running.post("/v1/collections", json={"name": "c"})
                running.post("/v1/collections/c/items", json={"id": "a", "vector": unit(1)})

    assert fuzzed(running, there) > 300

"""Whatever the API's own schema allows, and what it does not, is answered without a fault of the server."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx
import pytest
from serving import served, unit

from vlm.server.http.settings import Limits, Settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip: vlm[dev])")
from hypothesis import HealthCheck, given, settings, strategies  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis.specs.openapi.checks import response_schema_conformance  # noqa: E402

CASES = 30
"""A route and way of generating."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    limits = Limits(json_bytes=2**20, body_bytes=2**20, batch=8, top=50)
    with served(Settings(root=tmp_path_factory.mktemp("root"), limits=limits)) as client:
        client.post("/v1/collections", json={"name": "c"})
        yield client


def answered(client: httpx.Client, case: Any, exists: bool) -> None:
    """No fault; an error of the one form; an answer of the schema's form."""
    if exists and "name" in (case.path_parameters or {}):  # else few would get further than there being no such thing
        case.path_parameters["name"] = "c"
        if not client.get("/v1/collections/c").is_success:
            client.post("/v1/collections", json={"name": "c"})
            client.post("/v1/collections/c/items", json={"id": "a", "vector": unit(1)})
    answer = case.call(base_url=str(client.base_url))
    assert answer.status_code < 500, (case.as_curl_command(), answer.text)
    if answer.status_code >= 400:
        body = json.loads(answer.text)
        assert set(body) == {"error"}, body
        assert set(body["error"]) == {"code", "message"}, body
    case.validate_response(answer, checks=[response_schema_conformance])


def test_the_schema_finds_no_fault(running: httpx.Client) -> None:
    schema = schemathesis.openapi.from_dict(running.get("/openapi.json").json())
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    bounded = settings(
        max_examples=CASES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    tried = 0
    for operation, mode in ((found.ok(), mode) for found in schema.get_all_operations() for mode in modes):

        @bounded
        @given(case=operation.as_strategy(generation_mode=mode), exists=strategies.booleans())
        def run(case: Any, exists: bool) -> None:
            nonlocal tried
            tried += 1
            answered(running, case, exists)

        with contextlib.suppress(Unsatisfiable):  # a route without parameters takes nothing that is wrong
            run()
    assert tried > 300

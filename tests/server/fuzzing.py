"""Requests made from a server's own schema, and against it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import response_schema_conformance

CASES = 30
"""A route and way of generating."""


def fuzzed(client: httpx.Client, there: Callable[[Any], None], below: str = "") -> int:
    """How many requests every route below an address has answered without a fault. `there` makes half of them name what
    is there."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    bounded = settings(
        max_examples=CASES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    tried = 0
    operations = [one for found in schema.get_all_operations() if (one := found.ok()).path.startswith(below)]
    for operation, mode in ((one, mode) for one in operations for mode in modes):

        @bounded
        @given(case=operation.as_strategy(generation_mode=mode), exists=strategies.booleans())
        def run(case: Any, exists: bool) -> None:
            nonlocal tried
            tried += 1
            if exists:
                there(case)
            _answered(client, case)

        with contextlib.suppress(Unsatisfiable):  # a route without parameters takes nothing that is wrong
            run()
    return tried


def _answered(client: httpx.Client, case: Any) -> None:
    """No fault; an error of the one form; an answer of the schema's form."""
    answer = case.call(base_url=str(client.base_url))
    assert answer.status_code < 500, (case.as_curl_command(), answer.text)
    if answer.status_code >= 400:
        body = json.loads(answer.text)
        assert set(body) == {"error"}, body
        assert set(body["error"]) == {"code", "message"}, body
    case.validate_response(answer, checks=[response_schema_conformance])

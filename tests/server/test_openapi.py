"""Requests made of the OpenAPI document: whatever it allows, no answer is a fault of ours."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from serving_tiny import KEY

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis", reason="the extra [test] is not installed")

from schemathesis.specs.openapi import checks

HEADERS = {"Authorization": f"Bearer {KEY}"}
CHECKS = [checks.status_code_conformance, checks.content_type_conformance]
CHECKS += [checks.response_schema_conformance]
FEW = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_no_request_is_a_fault_of_the_server(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=HEADERS)
    operations = [each.ok() for each in schema.get_all_operations()]
    assert {each.path for each in operations} >= {"/v1/chat/completions", "/v1/messages"}
    for operation in operations:

        @FEW
        @given(operation.as_strategy())
        def check(case: Any) -> None:
            answer = case.call(headers=HEADERS, timeout=60)
            assert answer.status_code < 500, (case.body, answer.content)
            case.validate_response(answer, checks=CHECKS)

        check()

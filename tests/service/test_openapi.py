"""The OpenAPI document is complete, and random requests never get an answer that it does not describe."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from service.settings import Settings
from tests.service.helpers import ServerProcess, dense_network, running, upload_form

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def operations(settings: Settings) -> list[tuple[str, str, dict[str, Any]]]:
    paths = create_app(settings).openapi()["paths"]
    return [(path, method, operation) for path, item in paths.items() for method, operation in item.items()]


def test_every_operation_is_described(settings: Settings) -> None:
    found = operations(settings)
    assert len(found) == 20
    for path, method, operation in found:
        assert operation.get("description"), f"{method} {path} has no description"
        for status, response in operation["responses"].items():
            assert response["description"], f"{method} {path} {status}"
            media = set(response.get("content", {}))
            if int(status) >= 400:
                assert media == {"application/problem+json"}, f"{method} {path} {status}"
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["schema"].get("description"), (path, parameter["name"])


def test_every_reference_resolves(settings: Settings) -> None:
    document = create_app(settings).openapi()
    schemas = document["components"]["schemas"]

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(item) for item in value.values()))
        return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    for name in ("PredictRequest", "CompareRequest"):
        for field, schema in schemas[name]["properties"].items():
            assert schema.get("description") or schema.get("$ref") or schema.get("anyOf"), f"{name}.{field}"


def exercise(operation: APIOperation, mode: GenerationMode, statuses: Counter[tuple[GenerationMode, int]]) -> None:
    """A dozen requests to one operation, each answer checked against the document."""

    @hypothesis_settings(
        max_examples=12,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=operation.as_strategy(mode))
    def check(case: Any) -> None:
        statuses[mode, case.call_and_validate(checks=CHECKS).status_code] += 1

    check()


def test_random_requests_get_documented_answers(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(max_upload_bytes=2**20)
    assert server.client.post("/certify", **upload_form(dense_network(4, 8, 3), name="digits")).status_code == 201
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    described = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(described) == 20
    statuses: Counter[tuple[GenerationMode, int]] = Counter()
    for mode, operation in itertools.product(GenerationMode, described):
        if mode is GenerationMode.POSITIVE or operation.definition.raw.keys() & {"parameters", "requestBody"}:
            exercise(operation, mode, statuses)  # a request without parts cannot be wrong
    assert sum(statuses.values()) > 100
    assert statuses[GenerationMode.POSITIVE, 200] > 5 and statuses[GenerationMode.NEGATIVE, 422] > 5, statuses
    assert server.client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_document_is_shown_to_people(settings: Settings, page: str) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            answer = await client.get(page)
            assert answer.status_code == 200 and "openapi.json" in answer.text

    asyncio.run(scenario())

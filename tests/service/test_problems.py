"""Errors as problem documents: the table covers every class, defects tell nothing, and the docs keep up."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from certifier import errors as library
from service import errors as service
from service.app import create_app
from service.documentation import PAGES
from service.errors import Defect
from service.problems import TABLE, kind_of
from service.settings import Settings, settings_table
from tests.service.helpers import ROOT, running

NEVER_ANSWERED = {
    library.CertifierError,
    library.StateCorrupted,
    library.CertificateRefused,
    library.NotFinished,
    service.ServiceError,
}
"""Bases, what is mended in silence, and what only `lipcert verify` says."""


def classes_below(base: type[Exception]) -> set[type[Exception]]:
    return {base} | {found for child in base.__subclasses__() for found in classes_below(child)}


def test_every_error_class_has_a_row_or_a_reason_not_to() -> None:
    classes = classes_below(library.CertifierError) | classes_below(service.ServiceError)
    ours = {item for item in classes if item.__module__ in (library.__name__, service.__name__)}
    assert {item for item in ours if kind_of(item) is None} == NEVER_ANSWERED
    codes = [item.code for item in TABLE]  # type: ignore[attr-defined]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", [RuntimeError("secret"), library.StateCorrupted("secret"), Defect("secret")])
def test_a_defect_is_a_500_that_tells_nothing(settings: Settings, error: Exception) -> None:
    app = create_app(settings)

    async def broken() -> None:
        raise error

    app.add_api_route("/broken", broken)

    async def scenario() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://lipcert") as client:
            answer = await client.get("/broken")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret" not in answer.text and "Traceback" not in answer.text
        assert len(answer.json()["details"]["incident"]) == 32

    asyncio.run(scenario())


def test_problem_documents_have_the_fields_of_the_standard(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            problem = (await client.get("/models/nobody/versions/3")).json()
            assert problem == {
                "type": "urn:lipcert:problem:unknown-model",
                "title": "No such model",
                "status": 404,
                "detail": "no model 'nobody' with version 3",
                "instance": "/models/nobody/versions/3",
                "code": "unknown_model",
                "details": {"model": "nobody", "version": 3},
            }

    asyncio.run(scenario())


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_generated_pages_are_current(page: str) -> None:
    path = ROOT / "docs" / page
    assert path.read_text(encoding="utf-8") == PAGES[page](), "run: make docs"


def test_every_setting_and_route_is_documented(settings: Settings) -> None:
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    for path, operations in create_app(settings).openapi()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in page

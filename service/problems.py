"""Errors as problem documents (RFC 9457): one table from error class to status, title and type."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from certifier import errors as library
from service import errors as service
from service.schemas import Problem

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:lipcert:problem:"


@dataclass(frozen=True)
class Kind:
    """How one class of errors is answered."""

    status: int
    title: str


TABLE: Mapping[type[Exception], Kind] = {
    library.UnknownFormat: Kind(415, "The bytes are in no format that is read"),
    library.MalformedModel: Kind(400, "The model is not what its format promises"),
    library.ResourceLimitExceeded: Kind(422, "The model takes more than a limit allows"),
    library.UnsupportedNode: Kind(422, "A node of the model has no sound bound"),
    library.UnsupportedModel: Kind(422, "The model has no sound bound"),
    library.InvalidInput: Kind(422, "A value cannot be used"),
    library.SelfTestFailed: Kind(422, "The model failed its self-test, so nothing is certified"),
    library.NotProved: Kind(422, "No bound could be proved"),
    service.UnknownModel: Kind(404, "No such model"),
    service.UnknownJob: Kind(404, "No such job"),
    service.JobAbandoned: Kind(409, "The certification was abandoned"),
    service.NoPortableCertificate: Kind(404, "The version has no certificate file"),
    service.NameConflict: Kind(409, "The version is taken"),
    service.BodyTooLarge: Kind(413, "The body is too large"),
    service.MalformedRequest: Kind(400, "The body cannot be parsed"),
    service.UnsupportedMediaType: Kind(415, "The content type is not read here"),
    service.InvalidRequest: Kind(422, "A field cannot be used"),
    service.CertificationCrashed: Kind(422, "The certification process died"),
    service.Unavailable: Kind(503, "The server cannot take the request now"),
}
"""The nearest class in the error's ancestry decides; what has none here is a 500."""

RETRY_SECONDS = 5


def kind_of(error_class: type[Exception]) -> Kind | None:
    """How errors of that class are answered; None for a defect of ours."""
    return next((TABLE[ancestor] for ancestor in error_class.__mro__ if ancestor in TABLE), None)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    for error_class in (library.CertifierError, service.ServiceError):
        app.add_exception_handler(error_class, _any)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_exception_handler(Exception, _any)


def responses(*error_classes: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route that refuses with these errors; every route can also fail with 500."""
    by_status: dict[int, list[str]] = {}
    for error_class in error_classes:
        kind = kind_of(error_class)
        if kind is None:
            raise TypeError(f"{error_class.__name__} is in no row of the table of problems")
        by_status.setdefault(kind.status, []).append(f"`{_code(error_class)}`: {kind.title}.")
    by_status[500] = ["`internal_error`: A defect of the server; the answer names the log entry."]
    return {status: _response(texts) for status, texts in sorted(by_status.items())}


def problem_table() -> str:
    """The table of problems as Markdown: what `docs/http.md` shows."""
    lines = ["| status | code | title |", "|---|---|---|"]
    rows = [(kind.status, _code(error_class), kind.title) for error_class, kind in TABLE.items()]
    rows += [
        (404, "not_found", "No such resource"),
        (405, "method_not_allowed", "The resource does not answer this method"),
        (500, "internal_error", "A defect of the server"),
    ]
    lines += [f"| {status} | `{code}` | {title} |" for status, code, title in sorted(rows)]
    return "\n".join(lines) + "\n"


def validation_problems(error: ValidationError | RequestValidationError, root: str = "") -> list[tuple[str, str]]:
    """Field and reason of each finding; the refused values are not repeated."""
    findings = []
    for finding in error.errors():
        path = ".".join(str(part) for part in finding["loc"])
        field = f"{root}.{path}" if root and path else root or path
        findings.append((field, str(finding["msg"])))
    return findings


def _code(error_class: type[Exception]) -> str:
    return str(getattr(error_class, "code", "error"))


def _response(texts: Sequence[str]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": " ".join(dict.fromkeys(texts)), "content": {MEDIA_TYPE: {"schema": schema}}}


def problem_of(error: Exception, instance: str) -> Problem:
    """How `error` is answered at the path `instance`; a defect goes to the log, and the problem names its entry."""
    kind = kind_of(type(error))
    if kind is None:
        return _defect(error, instance)
    assert isinstance(error, library.CertifierError | service.ServiceError)
    detail = str(error) or kind.title
    return _problem(kind.status, error.code, kind.title, detail, instance, error.details())


def _problem(status: int, code: str, title: str, detail: str, instance: str, details: Mapping[str, object]) -> Problem:
    return Problem(
        type=TYPE_PREFIX + code.replace("_", "-"),
        title=title,
        status=status,
        detail=detail,
        instance=instance,
        code=code,
        details=dict(details),
    )


def _defect(error: Exception, instance: str) -> Problem:
    incident = uuid.uuid4().hex
    structlog.get_logger("service").error("defect", incident=incident, path=instance, exc_info=error)
    detail = f"The server failed; its log has the cause under {incident}."
    return _problem(500, "internal_error", "A defect of the server", detail, instance, {"incident": incident})


def _answer(problem: Problem) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_SECONDS)} if problem.status == 503 else None
    return JSONResponse(problem.model_dump(mode="json"), problem.status, headers, MEDIA_TYPE)


async def _any(request: Request, error: Exception) -> Response:
    return _answer(problem_of(error, request.url.path))


async def _invalid_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _any(request, service.InvalidRequest(validation_problems(error)))


async def _of_the_framework(request: Request, error: Exception) -> Response:
    """404, 405 and 413 that were raised before any route ran."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code = "body_too_large" if error.status_code == 413 else phrase.lower().replace(" ", "_")
    answer = _answer(_problem(error.status_code, code, phrase, str(error.detail) or phrase, request.url.path, {}))
    answer.headers.update(error.headers or {})
    return answer

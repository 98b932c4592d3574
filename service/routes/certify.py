"""Upload a model, get its certificate."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel

from certifier import errors as library
from certifier.documents import Certificate, CertifyOptions
from service import errors, schemas
from service.artifacts import CALIBRATION, UPLOAD
from service.bodies import parse_fields
from service.certifying import options_digest
from service.jobs import Job
from service.openapi import CERTIFY_BODY
from service.problems import responses
from service.schemas import Name, Version
from service.store import Upload
from service.uploads import Form, Place, asked_options, default_name, receive
from service.wiring import Wired

router = APIRouter(tags=["models"])
Prefer = Annotated[
    str | None,
    Header(description="`respond-async` (RFC 7240) answers at once with the job.", examples=["respond-async"]),
]

REFUSALS = (
    library.MalformedModel,
    library.UnknownFormat,
    library.ResourceLimitExceeded,
    library.UnsupportedModel,
    library.UnsupportedNode,
    library.InvalidInput,
    library.SelfTestFailed,
    library.NotProved,
    errors.NameConflict,
    errors.BodyTooLarge,
    errors.MalformedRequest,
    errors.UnsupportedMediaType,
    errors.InvalidRequest,
    errors.CertificationCrashed,
    errors.JobAbandoned,
    errors.Unavailable,
)


class _Labels(BaseModel):
    name: Name
    version: Version | None = None


@router.post(
    "/certify",
    status_code=201,
    response_model=Certificate,
    response_description="A new certificate.",
    responses={
        200: {"model": Certificate, "description": "The stored certificate."},
        202: {"model": schemas.Job, "description": "The job that certifies it, whose path is in `Location`."},
    }
    | responses(*REFUSALS),
    openapi_extra=dict(CERTIFY_BODY),
)
async def certify(request: Request, parts: Wired, prefer: Prefer = None) -> Response:
    """Certify a model.

    The same bytes with the same options under the same name are answered from the store with 200; a new certificate
    is a 201. Versions count up by themselves and are never given twice. With `Prefer: respond-async` a 202 names the
    job that goes on certifying; every certification is such a job, which can be watched and whose search can be ended.
    """
    folder = await asyncio.to_thread(parts.folder.new_folder)
    try:
        form = await receive(
            request,
            model=Place(path=folder / UPLOAD, limit=parts.settings.max_upload_bytes),
            calibration=Place(path=folder / CALIBRATION, limit=parts.settings.max_request_bytes),
        )
        upload, options = _described(form)
    except BaseException:
        await asyncio.to_thread(parts.folder.discard, folder)
        raise
    if _is_preferred(prefer, "respond-async"):
        begun, _ = await parts.certifying.begin(upload, options, folder)
        if isinstance(begun, Job):
            headers = {"Location": begun.path, "Preference-Applied": "respond-async"}
            return Response(begun.described().model_dump_json(), 202, headers, "application/json")
        return Response(begun, 200, media_type="application/json")
    document, created = await parts.certifying.certify(upload, options, folder)
    return Response(document, 201 if created else 200, media_type="application/json")


def _is_preferred(header: str | None, preference: str) -> bool:
    return preference in (part.split(";")[0].strip().lower() for part in (header or "").split(","))


def _described(form: Form) -> tuple[Upload, CertifyOptions]:
    received, fields = form.model, form.fields
    given: dict[str, Any] = {"name": fields.get("name") or default_name(received.filename, received.sha256)}
    if fields.get("version"):
        given["version"] = fields["version"]
    labels = parse_fields(_Labels, given)
    options = asked_options(form)
    upload = Upload(
        name=labels.name,
        version=labels.version,
        sha256=received.sha256,
        options_digest=options_digest(options),
        bytes=received.size,
    )
    return upload, options

"""Upload a model, get what certifying it would refuse."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from certifier.documents import ModelCheck
from certifier.errors import ResourceLimitExceeded
from service import errors
from service.artifacts import CALIBRATION, UPLOAD
from service.openapi import CERTIFY_BODY
from service.problems import responses
from service.uploads import Place, asked_options, receive
from service.wiring import Wired

router = APIRouter(tags=["models"])

REFUSALS = (
    ResourceLimitExceeded,
    errors.BodyTooLarge,
    errors.MalformedRequest,
    errors.UnsupportedMediaType,
    errors.InvalidRequest,
    errors.CertificationCrashed,
    errors.Unavailable,
)


@router.post(
    "/check",
    response_model=ModelCheck,
    response_description="What would be refused; nothing, if `refusals` is empty.",
    responses=responses(*REFUSALS),
    openapi_extra=dict(CERTIFY_BODY),
)
async def check(request: Request, parts: Wired) -> Response:
    """Say what certifying a model would refuse, where, why and what helps; nothing is certified or kept.

    Takes what `POST /certify` takes; `name` and `version` change nothing.
    """
    folder = await asyncio.to_thread(parts.folder.new_folder)
    try:
        form = await receive(
            request,
            model=Place(path=folder / UPLOAD, limit=parts.settings.max_upload_bytes),
            calibration=Place(path=folder / CALIBRATION, limit=parts.settings.max_request_bytes),
        )
        options = asked_options(form)
    except BaseException:
        await asyncio.to_thread(parts.folder.discard, folder)
        raise
    return Response(await parts.certifying.check(options, folder), media_type="application/json")

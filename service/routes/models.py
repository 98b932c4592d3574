"""Certified models: list, read, delete."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from certifier.documents import Certificate
from certifier.portable.envelope import ENVELOPE_MEDIA_TYPE
from service.artifacts import CERTIFICATE
from service.catalogue import deleted_summary, model_page, model_summary, pair_constants, signed_certificate
from service.errors import InvalidRequest, NoPortableCertificate, UnknownModel
from service.problems import responses
from service.schemas import NAME_PATTERN, NAME_TEXT, Deleted, ModelList, ModelSummary, Pairs
from service.wiring import Wired

router = APIRouter(prefix="/models", tags=["models"])
SIGNED_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "The envelope.", "content": {ENVELOPE_MEDIA_TYPE: {"schema": {"type": "object"}}}}
}
ModelName = Annotated[str, Path(pattern=NAME_PATTERN, description=NAME_TEXT, examples=["digits"])]
VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="Version of the model.", examples=[1])]


@router.get("", responses=responses(InvalidRequest))
async def list_models(
    parts: Wired,
    limit: Annotated[int, Query(ge=1, le=1000, description="Names on one page.")] = 100,
    after: Annotated[str, Query(max_length=128, description="Names behind this one.")] = "",
) -> ModelList:
    """Names of the certified models, in order, page by page."""
    return await asyncio.to_thread(model_page, parts.store, limit=limit, after=after)


@router.get("/{name}", responses=responses(UnknownModel, InvalidRequest))
async def read_model(parts: Wired, name: ModelName) -> ModelSummary:
    """A model's versions, newest first."""
    return await asyncio.to_thread(model_summary, parts.store, name)


@router.get("/{name}/versions/{version}", response_model=Certificate, responses=responses(UnknownModel, InvalidRequest))
async def read_version(parts: Wired, name: ModelName, version: VersionNumber) -> Response:
    """The full certificate of one version."""
    stored = await asyncio.to_thread(parts.store.resolve, name, version)
    document = await asyncio.to_thread(parts.store.read, stored, CERTIFICATE)
    return Response(document, media_type="application/json")


@router.get("/{name}/versions/{version}/pairs", responses=responses(UnknownModel, InvalidRequest))
async def read_pairs(parts: Wired, name: ModelName, version: VersionNumber) -> Pairs:
    """The proved constants of all pairs of classes, also above the 64 classes that a certificate lists."""
    return await asyncio.to_thread(pair_constants, parts.store, name, version)


@router.get(
    "/{name}/versions/{version}/certificate",
    response_class=Response,
    responses={**responses(UnknownModel, NoPortableCertificate, InvalidRequest), **SIGNED_ANSWER},
)
async def read_certificate(parts: Wired, name: ModelName, version: VersionNumber) -> Response:
    """The certificate as one signed file, which `lipcert verify` proves again: a DSSE envelope (Ed25519)."""
    envelope = await asyncio.to_thread(signed_certificate, parts.store, parts.signing_key, name, version)
    headers = {"Content-Disposition": f'attachment; filename="{name}-{version}.certificate.json"'}
    return Response(envelope, media_type=ENVELOPE_MEDIA_TYPE, headers=headers)


@router.delete("/{name}", responses=responses(UnknownModel, InvalidRequest))
async def delete_model(parts: Wired, name: ModelName) -> Deleted:
    """Delete all versions of a model; their numbers are not given again."""
    gone = await asyncio.to_thread(parts.store.delete, name, None)
    parts.runtime.forget(gone)
    return deleted_summary(name, gone)


@router.delete("/{name}/versions/{version}", responses=responses(UnknownModel, InvalidRequest))
async def delete_version(parts: Wired, name: ModelName, version: VersionNumber) -> Deleted:
    """Delete one version of a model; its number is not given again."""
    gone = await asyncio.to_thread(parts.store.delete, name, version)
    parts.runtime.forget(gone)
    return deleted_summary(name, gone)

"""Certified predictions and comparisons; the raw body goes to the runtime, which parses it away from the event loop."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from certifier.documents import Comparisons, Predictions
from certifier.errors import InvalidInput
from service.bodies import read_body
from service.errors import BodyTooLarge, InvalidRequest, MalformedRequest, Unavailable, UnknownModel
from service.openapi import json_body
from service.problems import responses
from service.schemas import CompareRequest, PredictRequest
from service.wiring import Wired

router = APIRouter(tags=["predictions"])
REFUSALS = responses(MalformedRequest, InvalidRequest, InvalidInput, UnknownModel, BodyTooLarge, Unavailable)


@router.post("/predict", response_model=Predictions, responses=REFUSALS, openapi_extra=json_body(PredictRequest))
async def predict(request: Request, parts: Wired) -> Response:
    """Label, margin and certified radius of every row, and what the outputs can do within `epsilon`."""
    body = await read_body(request, limit=parts.settings.max_request_bytes)
    return Response(await parts.runtime.predict(body), media_type="application/json")


@router.post("/compare", response_model=Comparisons, responses=REFUSALS, openapi_extra=json_body(CompareRequest))
async def compare(request: Request, parts: Wired) -> Response:
    """How far paired inputs are apart, how far their outputs are, and how far those could be."""
    body = await read_body(request, limit=parts.settings.max_request_bytes)
    return Response(await parts.runtime.compare(body), media_type="application/json")

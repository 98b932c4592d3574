"""Counters and timings in the text format of Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.metrics import CONTENT_TYPE
from service.problems import responses
from service.wiring import Wired

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    | responses(),
)
async def metrics(parts: Wired) -> Response:
    """Requests, certifications, predictions and loaded models."""
    return Response(parts.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

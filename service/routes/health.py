"""Whether the process lives, and whether it can serve."""

from __future__ import annotations

import asyncio

import structlog
from fastapi import APIRouter

from service.errors import Unavailable
from service.problems import responses
from service.schemas import Live, Ready
from service.wiring import Wired

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", responses=responses())
async def live() -> Live:
    """The process answers."""
    return Live(live=True)


@router.get("/ready", responses=responses(Unavailable))
async def ready(parts: Wired) -> Ready:
    """Database, storage and child processes answer, and the server is not stopping; 503 otherwise."""
    if parts.certifying.draining:
        raise Unavailable("the server is stopping")
    try:
        await asyncio.to_thread(parts.store.check)
        await parts.children.check()
    except Exception as error:  # whatever fails, the answer is the same: not ready
        structlog.get_logger("service").error("not ready", exc_info=error)
        raise Unavailable("storage or child processes do not answer") from error
    return Ready(ready=True)

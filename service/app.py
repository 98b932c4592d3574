"""create_app(settings): wiring and lifespan, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from certifier.limits import Limits
from service import openapi, problems
from service.certifying import Certifying
from service.child import ChildLimits
from service.children import Children
from service.closing import CloseAfterEarlyAnswer
from service.datadir import DataDirectory
from service.metrics import Metrics, MetricsMiddleware
from service.routes import certify, check, health, jobs, keys, models, operators, predict
from service.routes import metrics as metrics_route
from service.runtime import Runtime
from service.settings import Settings
from service.store import Store
from service.uploads import MULTIPART_OVERHEAD
from service.wiring import Parts


def create_app(settings: Settings) -> FastAPI:
    """The service under `settings`; it touches its data folder only while its lifespan runs."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = await asyncio.to_thread(_open, settings, metrics)
        app.state.parts = parts
        try:
            await parts.children.check()
            yield
        finally:
            await parts.certifying.close()
            await asyncio.to_thread(_close, parts)

    app = FastAPI(
        title=openapi.TITLE,
        description=openapi.DESCRIPTION,
        version=openapi.version(),
        lifespan=lifespan,
        # A backstop: the routes count their own bodies against tighter limits.
        max_body_size=settings.max_upload_bytes + settings.max_request_bytes + MULTIPART_OVERHEAD,
    )
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(CloseAfterEarlyAnswer)
    problems.install(app)
    for routes in (health, certify, jobs, check, models, keys, predict, operators, metrics_route):
        app.include_router(routes.router)
    openapi.complete(app)
    return app


def _open(settings: Settings, metrics: Metrics) -> Parts:
    folder = DataDirectory(settings)
    try:
        store = Store(database_url=settings.database, storage_url=settings.storage, owner=folder.owner())
        signing_key = folder.signing_key(settings)
        swept = store.sweep()
        structlog.get_logger("service").info("opened", data_dir=str(folder.path), swept=swept)
        children = Children(
            workers=settings.workers,
            queue=settings.certify_queue,
            limits=ChildLimits(memory_bytes=settings.child_memory_bytes, cpu_seconds=settings.child_cpu_seconds),
        )
        certifying = Certifying(
            store=store,
            children=children,
            folder=folder,
            seal=folder.seal(settings),
            limits=Limits(model_bytes=settings.max_upload_bytes, seconds=settings.certify_seconds),
            metrics=metrics,
        )
        runtime = Runtime(
            store=store,
            threads=settings.predict_threads,
            queue=settings.predict_queue,
            cached=settings.cached_models,
            metrics=metrics,
        )
    except BaseException:
        folder.close()
        raise
    return Parts(
        settings=settings,
        folder=folder,
        store=store,
        children=children,
        certifying=certifying,
        runtime=runtime,
        metrics=metrics,
        signing_key=signing_key,
    )


def _close(parts: Parts) -> None:
    parts.runtime.close()
    parts.store.close()
    parts.folder.close()

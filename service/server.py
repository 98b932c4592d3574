"""run(settings): the application under uvicorn, drained before it stops."""

from __future__ import annotations

import asyncio
import logging
import signal
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    configure_logs(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        timeout_graceful_shutdown=settings.shutdown_seconds,
        access_log=False,
        log_config=None,
        server_header=False,
    )
    DrainingServer(config, app, settings.drain_seconds).run()


class DrainingServer(uvicorn.Server):
    """On SIGTERM, says it is not ready, keeps serving for the drain, and then stops; SIGINT stops at once.

    Either calls running searches off, so that certifications end with what they have proved.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self._app, self._drain_seconds = app, drain_seconds
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or stop."""
        parts = getattr(self._app.state, "parts", None)
        if parts is not None:
            parts.certifying.draining = True
            # Not from within a signal handler, which may have interrupted it.
            asyncio.get_running_loop().call_soon_threadsafe(parts.certifying.call_off_searches)
        if sig == signal.SIGTERM and self._stop_at is None and self._drain_seconds > 0 and parts is not None:
            self._stop_at = asyncio.get_running_loop().time() + self._drain_seconds
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Stop once the drain is over."""
        if self._stop_at is not None and asyncio.get_running_loop().time() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def configure_logs(level: str) -> None:
    """One JSON object per line on standard error; never the content of a request."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.dict_tracebacks,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)

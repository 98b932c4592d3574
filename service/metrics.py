"""Counters and timings for Prometheus, in a registry of the application's own."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What the service counts; no model's name becomes a label, so that the number of series stays bounded."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "lipcert_requests", "Answers by route and status.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "lipcert_request_seconds", "Seconds until an answer was sent.", ["route"], registry=self._registry
        )
        self._certifications = Counter(
            "lipcert_certifications", "Uploads by outcome: certified, stored, or a code.", ["outcome"],
            registry=self._registry,
        )  # fmt: skip
        self._predict = Histogram(
            "request_predict_seconds", "Seconds in the engine and the certificate.", registry=self._registry
        )
        self._rows = Counter("lipcert_predicted_rows", "Rows predicted.", registry=self._registry)
        self.loaded = Gauge("lipcert_loaded_models", "Models kept loaded.", registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def certified(self, outcome: str) -> None:
        """One upload ended with `outcome`."""
        self._certifications.labels(outcome).inc()

    def predicted(self, rows: int, seconds: float) -> None:
        """`rows` rows were predicted in `seconds`."""
        self._rows.inc(rows)
        self._predict.observe(seconds)

    def exposition(self) -> bytes:
        """The metrics as Prometheus reads them."""
        return generate_latest(self._registry)


class MetricsMiddleware:
    """Counts every answer under its route's template."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "unrouted")
            method = scope["method"] if route != "unrouted" else "any"
            self._metrics.answered(method, route, status, time.perf_counter() - started)

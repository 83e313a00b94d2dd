"""Prometheus figures of a service's HTTP side. Labels are route templates, never values from a request."""

from __future__ import annotations

import time

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNMATCHED = "unmatched"


class Metrics:
    """The collectors of one app; each app has its own registry, so that tests can make many."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("pcehr_http_requests", "HTTP requests served.", labels, registry=self.registry)
        self.seconds = Histogram(
            "pcehr_http_request_seconds", "Time to serve a request.", ("method", "route"), registry=self.registry
        )

    def router(self) -> APIRouter:
        """`GET /metrics` in the Prometheus text format."""
        router = APIRouter(tags=["operations"])

        @router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
        async def metrics() -> Response:
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return router


class MeasureRequests:
    """ASGI middleware that counts and times requests by route template."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            # A method nobody routes could be any text, hence an unbounded label.
            method = scope["method"] if route != UNMATCHED else UNMATCHED
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - started)
